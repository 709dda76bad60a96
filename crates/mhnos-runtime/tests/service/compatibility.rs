//! What programs do for a living goes on behind the walls of every tier.

use mhnos_sandbox::Tier;
use mhnos_testing::{Server, Wire, WireOptions, host::Host};
use serde_json::json;

use crate::{abuse::strict_hosts, options};

const WORK: &str = include_str!("work.sh");

#[tokio::test]
async fn ordinary_work_is_done_in_every_tier() {
    for (index, host) in strict_hosts().enumerate() {
        let server = Server::start(options().on(host));
        // Without a network of its own the port is the host's: one of those a program may connect to.
        let work = WORK.replace("PORT", &(8080 + index).to_string());
        // forkserver is a process behind a unix socket, which these tiers have only if the host has none with a path.
        let shares_host = matches!(Host::named(host).tier, Tier::T3 | Tier::T3Plus);
        let methods = if shares_host { "[\"spawn\"]" } else { "[\"spawn\", \"forkserver\"]" };
        server.write("work.sh", work.replace("METHODS", methods));
        let mut wire = Wire::connect(server.address()).await;
        let options = json!({"pty": false});
        let pid = wire
            .spawn(
                json!({"processType": "shell", "command": "bash", "args": ["work.sh"], "options": options}),
            )
            .await;
        let (stdout, stderr, exit) = wire.run_to_exit(pid).await;
        assert!(stdout.ends_with("all done\n"), "{host}: {exit}\n{stdout}\n{stderr}");
    }
}

#[tokio::test]
async fn workerd_listens_in_every_tier() {
    for host in strict_hosts() {
        let server = Server::start(options().on(host));
        server.write("worker.js", "export default { fetch() { return new Response('y') } }\n");
        let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
        let pid = wire.spawn(json!({"processType": "workerd", "command": "worker.js"})).await;
        let told = wire
            .next_where(|message| ["port", "exit"].contains(&message["type"].as_str().unwrap_or("")))
            .await;
        assert_eq!((&told["type"], &told["state"]), (&json!("port"), &json!("open")), "{host}: {told}");
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
