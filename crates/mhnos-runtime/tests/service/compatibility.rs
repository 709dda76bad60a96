//! What programs do for a living goes on behind the walls of every tier.

use mhnos_testing::{Server, Wire};
use serde_json::json;

use crate::{abuse::strict_hosts, options};

const WORK: &str = include_str!("work.sh");

#[tokio::test]
async fn ordinary_work_is_done_in_every_tier() {
    for (index, host) in strict_hosts().enumerate() {
        let server = Server::start(options().on(host));
        // Without a network of its own the port is the host's: one of those a program may connect to.
        server.write("work.sh", WORK.replace("PORT", &(8080 + index).to_string()));
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
