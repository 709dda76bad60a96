//! What programs do for a living goes on behind the walls of every tier.

use mhnos_sandbox::Tier;
use mhnos_testing::{Server, Wire, WireOptions, host::Host, tools_path_with_node};
use serde_json::json;

use crate::{abuse::strict_hosts, options};

const WORK: &str = include_str!("work.sh");
const NODE_WORK: &str = include_str!("node.sh");

/// The lines of Node.js that are supported beside the pinned one, which all other tests use.
const OTHER_NODES: [u32; 2] = [22, 26];

/// Begins a script that says nothing for long, as compilers and npm do: whoever waits wants to hear something.
pub(crate) const STILL_AT_IT: &str =
    "(while sleep 10; do echo still at it >&2; done) & heard=$!; trap 'kill $heard' EXIT\n";

/// Runs a script that says so at its end. Without a network of its own the port is the host's: one of those a program may
/// connect to.
async fn work(server: &Server, host: &str, script: &str, port: usize) {
    server.write("work.sh", STILL_AT_IT.to_owned() + &script.replace("PORT", &port.to_string()));
    let mut wire = Wire::connect(server.address()).await;
    let options = json!({"pty": false});
    let pid = wire
        .spawn(json!({"processType": "shell", "command": "bash", "args": ["work.sh"], "options": options}))
        .await;
    let (stdout, stderr, exit) = wire.run_to_exit(pid).await;
    assert!(stdout.ends_with("all done\n"), "{host}: {exit}\n{stdout}\n{stderr}");
}

/// Whether programs that see the host's tree have unix sockets: only where none with a path is there for them to find.
fn host_has_no_path_sockets() -> bool {
    let table = std::fs::read_to_string("/proc/net/unix").expect("the table of unix sockets");
    !table
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(7))
        .any(|name| !name.starts_with('@'))
}

#[tokio::test]
async fn ordinary_work_is_done_in_every_tier() {
    for (index, host) in strict_hosts().enumerate() {
        // forkserver is a process behind a unix socket.
        let shares_host = matches!(Host::named(host).tier, Tier::T3 | Tier::T3Plus);
        let unix_sockets = !shares_host || host_has_no_path_sockets();
        let server = Server::start(options().on(host));
        let methods = if unix_sockets { "[\"spawn\", \"forkserver\"]" } else { "[\"spawn\"]" };
        println!("{host}: multiprocessing by fork and {methods}");
        let script = WORK.replace("METHODS", methods).replace("@node.sh", NODE_WORK);
        work(&server, host, &script, 8080 + index).await;
    }
}

#[tokio::test]
async fn every_supported_node_does_its_work_in_every_tier() {
    for major in OTHER_NODES {
        for (index, host) in strict_hosts().enumerate() {
            let server = Server::start(options().env("MHNOS_PATH", tools_path_with_node(major)).on(host));
            let script = format!(
                "set -eu\nexport HOME=\"$PWD\" TMPDIR=/tmp\nnode --version | grep -q '^v{major}[.]'\n{NODE_WORK}\necho all done\n"
            );
            work(&server, host, &script, 8088 + index).await;
        }
    }
}

#[tokio::test]
async fn workerd_answers_in_every_tier() {
    for (index, host) in strict_hosts().enumerate() {
        let server = Server::start(options().on(host));
        // One that a program without a network of its own may connect to.
        let port = 8020 + index;
        server.write(
            "worker.js",
            "export default { fetch(request) { return new Response('to ' + request.url) } }\n",
        );
        let config = "using Workerd = import \"/workerd/workerd.capnp\";\n\
            const config :Workerd.Config = (services = [(name = \"main\", worker = .w)],\n\
            sockets = [(name = \"http\", address = \"127.0.0.1:PORT\", http = (), service = \"main\")]);\n\
            const w :Workerd.Worker = (modules = [(name = \"worker.js\", esModule = embed \"worker.js\")], \
            compatibilityDate = \"2026-11-01\");\n";
        server.write("config.capnp", config.replace("PORT", &port.to_string()));
        server.write("ask.mjs", "console.log(await (await fetch(process.argv[2])).text());\n");
        let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
        let pid = wire.spawn(json!({"processType": "workerd", "command": "config.capnp"})).await;
        let told = wire
            .next_where(|message| ["port", "exit"].contains(&message["type"].as_str().unwrap_or("")))
            .await;
        assert_eq!((&told["type"], &told["state"]), (&json!("port"), &json!("open")), "{host}: {told}");
        let url = format!("http://127.0.0.1:{port}/here");
        let ask = wire.spawn(json!({"processType": "node", "command": "ask.mjs", "args": [&url]})).await;
        let (stdout, stderr, _) = wire.run_to_exit(ask).await;
        assert_eq!((stdout, stderr), (format!("to {url}\n"), String::new()), "{host}");
        wire.request(json!({"type": "kill", "id": 1, "pid": pid})).await;
    }
}

#[tokio::test]
async fn a_terminal_is_whole_in_every_tier() {
    for host in strict_hosts() {
        let server = Server::start(options().on(host));
        let mut wire = Wire::connect(server.address()).await;
        let script = "set -m; sleep 1000 & kill %1; wait; echo direct > /dev/tty; echo error > /dev/stderr; stty size; echo end";
        let pid = wire
            .spawn(json!({"processType": "shell", "command": "bash", "args": ["-c", script], "options": {"pty": true}}))
            .await;
        let (stdout, _, exit) = wire.run_to_exit(pid).await;
        for expected in ["direct", "error", "24 80", "end"] {
            assert!(stdout.contains(expected), "{host}: {expected}: {exit} {stdout}");
        }
    }
}
