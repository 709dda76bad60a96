//! What programs do for a living goes on behind the walls of every tier.

use std::{fs, time::Duration};

use mhnos_sandbox::Tier;
use mhnos_testing::{Server, Wire, WireOptions, eventually_async, host::Host, tools_path_with_node, waive};
use serde_json::json;
use tokio::time::timeout;

use crate::{abuse::strict_hosts, options};

const WORK: &str = include_str!("work.sh");
const NODE_WORK: &str = include_str!("node.sh");

/// The lines of Node.js that are supported beside the pinned one, which all other tests use.
const OTHER_NODES: [u32; 2] = [22, 26];

/// Node.js's own ports for its inspector, to which programs may connect where the network is the host's.
const INSPECTED: std::ops::RangeInclusive<u16> = 9229..=9236;

/// Begins a script that says nothing for long, as compilers and npm do: whoever waits wants to hear something.
pub(crate) const STILL_AT_IT: &str =
    "(while sleep 10; do echo still at it >&2; done) & heard=$!; trap 'kill $heard' EXIT\n";

/// Runs a script that says so at its end. Without a network of its own the port is the host's: one of those a program may
/// connect to.
async fn work(server: &Server, host: &str, script: &str, port: usize) {
    let shares_network = matches!(Host::named(host).tier, Tier::T3 | Tier::T3Plus);
    let inspected = if shares_network { INSPECTED.collect() } else { vec![0] };
    let script = script.replace("PORT", &port.to_string()).replace("INSPECTED", &format!("{inspected:?}"));
    server.write("work.sh", STILL_AT_IT.to_owned() + &script);
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
        if !unix_sockets {
            waive(&format!("{host}: forkserver"), "a socket with a path exists here (docs/threat-model.md)");
        }
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

/// By the call itself: mv(1) and others copy where it is refused, and so tell nothing.
#[tokio::test]
async fn files_move_from_one_directory_to_another_in_every_tier() {
    const MOVE: &str = "
import os, tempfile
for place in [os.getcwd(), tempfile.mkdtemp(dir='/tmp')]:
    for name in ['a', 'b']: os.mkdir(f'{place}/{name}')
    open(f'{place}/a/file', 'w').close()
    os.rename(f'{place}/a/file', f'{place}/b/file')
    os.link(f'{place}/b/file', f'{place}/a/again')
    os.mkdir(f'{place}/a/inner')
    os.rename(f'{place}/a/inner', f'{place}/b/inner')
";
    for host in strict_hosts().chain(["none"]) {
        let mode = if host == "none" { "none" } else { "strict" };
        let server = Server::start(options().on(host).env("MHNOS_SANDBOX", mode));
        let mut wire = Wire::connect(server.address()).await;
        let spawn = json!({"processType": "python", "command": "-c", "args": [MOVE]});
        let pid = wire.spawn(spawn).await;
        let (stdout, stderr, exit) = wire.run_to_exit(pid).await;
        // The first Landlock knows no such right, and denies it (Linux 5.13 to 5.18).
        let denied = Host::named(host).landlock == Some(1);
        assert_eq!(exit["code"], i32::from(denied), "{host}: {exit}\n{stdout}{stderr}");
        assert_eq!(stderr.contains("Invalid cross-device link"), denied, "{host}: {stderr}");
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

/// Longest time for what takes milliseconds.
const SOON: Duration = Duration::from_mins(1);

/// Somebody at the keys of a terminal: types, and reads on from where they have read to.
struct Keys {
    wire: Wire,
    pid: u64,
    /// All that has been shown.
    screen: String,
    /// How much of it has been read.
    read: usize,
}

impl Keys {
    const PROMPT: &str = "ready> ";

    /// At an interactive shell that starts.
    async fn at_a_shell(server: &Server) -> Self {
        let mut wire = Wire::connect(server.address()).await;
        let options = json!({"pty": true, "env": {"PS1": Self::PROMPT}});
        let spawn =
            json!({"processType": "shell", "command": "bash", "args": ["--norc", "-i"], "options": options});
        let pid = wire.spawn(spawn).await;
        Self { wire, pid, screen: String::new(), read: 0 }
    }

    async fn type_in(&mut self, keys: &str) {
        self.wire.send(&json!({"type": "write", "pid": self.pid, "data": keys})).await;
    }

    /// Reads on until all of these have been shown, in this order.
    async fn see(&mut self, shown: &[&str]) {
        for what in shown {
            while !self.screen[self.read..].contains(what) {
                let pid = self.pid;
                let message = timeout(SOON, self.wire.next_where(|message| message["pid"] == pid)).await;
                let message = message.unwrap_or_else(|_| panic!("no {what:?}: {:?}", self.screen));
                assert_ne!(message["type"], "exit", "ended before {what:?}: {message}\n{}", self.screen);
                self.screen += message["data"].as_str().unwrap_or_default();
            }
            let at = self.screen[self.read..].find(what).expect("it was shown");
            self.read += at + what.len();
        }
    }

    /// Types a line and reads on until it has shown these and the next prompt.
    async fn enter(&mut self, line: &str, shown: &[&str]) {
        self.type_in(&format!("{line}\r")).await;
        self.see(shown).await;
        self.see(&[Self::PROMPT]).await;
    }

    /// Presses a key that ends or stops what is in the foreground, and has its status told.
    async fn press(&mut self, key: &str, shown: &[&str], status: u8) {
        self.type_in(key).await;
        self.see(shown).await;
        // What is typed before the prompt may still be read by the program that is about to end.
        self.see(&[Self::PROMPT]).await;
        self.enter("echo it says $?", &[&format!("it says {status}\r\n")]).await;
    }
}

/// Waits until the terminal's keys go to the program with this command line.
async fn in_the_foreground(server: &Server, command: &str) {
    eventually_async(SOON, command, async || {
        let found = server.descendants().into_iter().find(|process| process.command == command)?;
        let stat = fs::read_to_string(format!("/proc/{}/stat", found.os_pid)).ok()?;
        // proc(5): state, parent, process group, session, terminal, the terminal's foreground group.
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        (fields[2] == fields[5]).then_some(())
    })
    .await;
}

/// What is typed is echoed, by the terminal or the shell: nothing that is waited for is in it.
#[tokio::test]
async fn an_interactive_shell_controls_its_jobs_in_every_tier() {
    for host in strict_hosts().chain(["none"]) {
        let mode = if host == "none" { "none" } else { "strict" };
        println!("{host}");
        let server = Server::start(options().on(host).env("MHNOS_SANDBOX", mode));
        let mut keys = Keys::at_a_shell(&server).await;
        // Before the shell has asked for anything, or even runs.
        keys.enter("echo typed' 'ahead", &["typed ahead\r\n"]).await;
        keys.enter("sleep 1000 &", &["[1] "]).await;

        keys.type_in("sed -u s/^/seen' '/\r").await;
        // A return key typed while the shell reads is no line's end to programs.
        in_the_foreground(&server, "sed -u s/^/seen /").await;
        keys.type_in("one\r").await;
        keys.see(&["seen one"]).await;
        keys.press("\x1a", &["Stopped"], 128 + 20).await;
        keys.enter("jobs", &["[1]-  Running", "sleep 1000 &", "[2]+  Stopped", "sed -u"]).await;
        keys.type_in("fg\r").await;
        keys.see(&["sed -u"]).await;
        keys.type_in("two\r").await;
        keys.see(&["seen two"]).await;
        keys.press("\x03", &["^C"], 128 + 2).await;

        keys.type_in("sleep 2000\r").await;
        in_the_foreground(&server, "sleep 2000").await;
        keys.press("\x1a", &["[2]+  Stopped"], 128 + 20).await;
        keys.enter("bg", &["[2]+ sleep 2000 &"]).await;
        keys.enter("jobs", &["[1]-  Running", "[2]+  Running"]).await;
        keys.type_in("fg\r").await;
        in_the_foreground(&server, "sleep 2000").await;
        keys.press("\x03", &["^C"], 128 + 2).await;

        keys.enter("kill %1; wait %1; echo it says $?", &["it says 143\r\n"]).await;
        keys.type_in("exit 7\r").await;
        let (_, _, exit) = keys.wire.run_to_exit(keys.pid).await;
        let end = (&exit["code"], &exit["signal"]);
        assert_eq!(end, (&json!(7), &serde_json::Value::Null), "{host}: {exit}\n{}", keys.screen);
        for complaint in ["no job control", "cannot set terminal"] {
            assert!(!keys.screen.contains(complaint), "{host}: {}", keys.screen);
        }
    }
}
