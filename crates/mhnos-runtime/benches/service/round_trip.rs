//! A message there and back.

use std::time::Instant;

use mhnos_testing::Wire;
use serde_json::json;

use crate::{percentiles, report, start};

const WARM_UP: usize = 200;
const ROUNDS: usize = 5_000;

/// A request that the bridge answers by itself.
pub(crate) async fn ping() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let mut times = Vec::with_capacity(ROUNDS);
    for round in 0..WARM_UP + ROUNDS {
        let begin = Instant::now();
        let answer = wire.request(json!({"type": "ping", "id": round})).await;
        assert_eq!(answer["type"], "pong");
        if round >= WARM_UP {
            times.push(begin.elapsed());
        }
    }
    report("ping", &percentiles(&mut times));
}

/// A line through `cat`, on pipes and on a terminal.
pub(crate) async fn echo() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    for (what, pty) in [("echo through a pipe", false), ("echo through a terminal", true)] {
        let script = if pty { "stty -echo -onlcr; echo ready; exec cat" } else { "echo ready; exec cat" };
        let options = json!({"pty": pty});
        let pid = wire
            .spawn(json!({"processType": "shell", "command": "bash", "args": ["-c", script], "options": options}))
            .await;
        wire.stdout_until(pid, "ready").await;
        let mut times = Vec::with_capacity(ROUNDS);
        for round in 0..WARM_UP + ROUNDS {
            let line = format!("{round}\n");
            let begin = Instant::now();
            wire.send(&json!({"type": "write", "pid": pid, "data": line})).await;
            let echoed = wire.stdout_until(pid, &line).await;
            if round >= WARM_UP {
                times.push(begin.elapsed());
            }
            assert!(echoed.ends_with(&line), "{echoed:?}");
        }
        report(what, &percentiles(&mut times));
    }
}
