//! What clients do in one round: everything the service has a way for, the same in each, so that what is retained of it is the
//! same after each.

use std::time::{Duration, Instant};

use mhnos_testing::{Server, Wire, WireOptions, eventually, eventually_async, http_get};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use super::SOON;
use crate::{
    egress::outside::Outside,
    requests::{bash, bridge, numbers, with_options},
};

/// Lines of the program whose bridge ends.
const LINES: u32 = 20_000;

/// Rounds on one service.
pub(super) struct Work<'a> {
    server: &'a Server,
    outside: &'a Outside,
    bridges: u32,
    /// When the present one was started.
    replaced: Option<Instant>,
}

impl<'a> Work<'a> {
    pub(super) fn new(server: &'a Server, outside: &'a Outside) -> Self {
        Self { server, outside, bridges: 1, replaced: None }
    }

    /// How many bridges there have been.
    pub(super) fn bridges(&self) -> u32 {
        self.bridges
    }

    /// What clients do, and then rest. The bridge ends if it has lived so long.
    pub(super) async fn round(&mut self, life: Duration) {
        self.nothing_is_lost_or_doubled(life).await;
        let server = self.server;
        let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
        let mut other = Wire::connect_as(server.address(), WireOptions::binary()).await;
        for _ in 0..10 {
            let pid = wire.spawn(bash("echo out; echo err >&2; exit 3")).await;
            assert_eq!(wire.run_to_exit(pid).await.2["code"], 3);
        }
        let flood = wire.spawn(bash("head -c 20000000 /dev/zero | tr '\\0' x")).await;
        assert_eq!(wire.run_to_exit(flood).await.0.len(), 20_000_000);
        let shell = wire.spawn(json!({"processType": "shell"})).await;
        wire.send(&json!({"type": "write", "pid": shell, "data": "seq 1 5000; exit\r"})).await;
        wire.run_to_exit(shell).await;
        self.the_way_out(&mut wire).await;
        self.a_preview(&mut wire).await;
        let tree = wire.spawn(bash("(setsid sleep 1000 &); sleep 1000 & echo up; wait")).await;
        wire.stdout_until(tree, "up").await;
        // A viewer that comes, takes nothing and goes.
        other.send(&json!({"type": "attach", "id": 1, "pid": tree})).await;
        drop(other);
        kill(&mut wire, tree).await;
        drop(wire);
        eventually_async(SOON, "rest", async || {
            let list = serving(server).await;
            (list["stats"]["active"] == 0).then_some(())
        })
        .await;
    }

    /// A viewer goes on where it was, on a new connection; now and then to another bridge.
    async fn nothing_is_lost_or_doubled(&mut self, life: Duration) {
        let script = format!("i=0; while [ $i -lt {LINES} ]; do echo $i; i=$((i+1)); done; exit 6");
        let mut wire = Wire::connect_as(self.server.address(), WireOptions::modern()).await;
        let pid = wire.spawn(bash(&script)).await;
        let expected = numbers(0..LINES, "\n");
        let (mut text, mut after) = (String::new(), 0);
        while text.len() < expected.len() / 3 {
            let message = wire.next_where(|message| message["pid"] == pid).await;
            assert_eq!(message["type"], "stdout", "{message}");
            text += message["data"].as_str().expect("text");
            after = message["seq"].as_u64().expect("a position");
        }
        self.another_bridge(life);
        let mut wire = Wire::connect_as(self.server.address(), WireOptions::modern()).await;
        wire.send(&json!({"type": "attach", "id": "again", "pid": pid, "after": after})).await;
        let (rest, _, exit) = wire.run_to_exit(pid).await;
        assert!(text + &rest == expected, "bytes lost or doubled");
        assert_eq!((&exit["code"], &exit["reason"]), (&json!(6), &json!("exited")), "{exit}");
    }

    /// Kills the bridge, or has it replaced, if it is old enough.
    fn another_bridge(&mut self, life: Duration) {
        if self.replaced.is_some_and(|at| at.elapsed() < life) {
            return;
        }
        let old = eventually(SOON, "a bridge", || bridge(self.server));
        if self.bridges.is_multiple_of(2) {
            self.server.signal(Signal::USR2);
        } else {
            kill_process(old, Signal::KILL).expect("it is ours");
        }
        eventually(SOON, "another bridge", || bridge(self.server).filter(|next| *next != old));
        (self.bridges, self.replaced) = (self.bridges + 1, Some(Instant::now()));
    }

    /// By the proxy, from the workspace's sandbox and from a private one.
    async fn the_way_out(&self, wire: &mut Wire) {
        let script = format!("curl -sS {}/x", self.outside.url());
        for isolation in ["shared", "private"] {
            let before = self.outside.requests();
            let pid = wire.spawn(with_options(bash(&script), json!({"isolation": isolation}))).await;
            let (stdout, stderr, exit) = wire.run_to_exit(pid).await;
            assert_eq!((stdout.as_str(), &exit["code"]), ("GET /x", &json!(0)), "{isolation}: {stderr}");
            assert!(self.outside.requests() > before, "{isolation}");
        }
    }

    /// What a program serves.
    async fn a_preview(&self, wire: &mut Wire) {
        let serve = json!(["http.server", "0", "--bind", "127.0.0.1"]);
        let spawn =
            json!({"processType": "python", "command": "-m", "args": serve, "options": {"pty": false}});
        let pid = wire.spawn(spawn).await;
        let open = |message: &Value| message["type"] == "port" && message["pid"] == pid;
        let port = wire.next_where(open).await["port"].clone();
        let address = self.server.address();
        let host = format!("Host: p{pid}-{port}.localhost:{}", address.port());
        let answer = http_get(address, "/", &[&host]).expect("an answer");
        assert!(answer.status == 200 && answer.body.contains("Directory listing"), "{answer:?}");
        kill(wire, pid).await;
    }
}

async fn kill(wire: &mut Wire, pid: u64) {
    assert_eq!(wire.request(json!({"type": "kill", "id": "end", "pid": pid})).await["type"], "killed");
}

/// What the service answers when asked what runs.
pub(super) async fn serving(server: &Server) -> Value {
    let mut wire = Wire::connect(server.address()).await;
    wire.request(json!({"type": "list", "id": 1})).await
}
