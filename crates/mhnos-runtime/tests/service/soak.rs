//! The service works for a long time, and costs at the end what it cost at the beginning.
//!
//! `make soak` runs it for half an hour; without `MHNOS_SOAK_MINUTES` it is one minute. Rounds of ordinary work are
//! followed by rest, in which memory (PSS), descriptors and zombies of the service's own processes are counted.

use std::time::{Duration, Instant};

use mhnos_testing::{Server, Wire, WireOptions, eventually, eventually_async};
use serde_json::{Value, json};

use crate::{options, requests::bridge};

/// Rounds until everything that is set up on first use is there, and the retained exits are as many as may be.
const WARM_UP: usize = 12;
/// What the proportional set size may have grown by: allocators keep a little here and there.
const MEMORY_SLACK_KIB: u64 = 4 * 1024;
/// Longest time for what takes milliseconds.
const SOON: Duration = Duration::from_mins(1);

/// What the service holds at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    pss_kib: u64,
    fds: usize,
    zombies: usize,
    processes: usize,
}

#[tokio::test]
#[ignore = "runs for minutes: make soak"]
#[allow(clippy::disallowed_methods, reason = "how long it runs is for whoever runs it")]
async fn nothing_grows() {
    let minutes = std::env::var("MHNOS_SOAK_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let server = Server::start(options().env("MHNOS_LOG_LEVEL", "warn"));
    let begun = Instant::now();
    let (mut rounds, mut first, mut most) = (0, None, 0);
    while begun.elapsed() < Duration::from_secs(60 * minutes) || rounds <= WARM_UP {
        round(&server).await;
        rounds += 1;
        let held = held(&server, first);
        if rounds >= WARM_UP {
            let first = *first.get_or_insert(held);
            most = most.max(held.pss_kib);
            let seconds = begun.elapsed().as_secs();
            if rounds % 10 == 0 {
                println!("{seconds} s, round {rounds}: {held:?}");
            }
            assert!(held.pss_kib < first.pss_kib + MEMORY_SLACK_KIB, "{held:?}, at first {first:?}");
        }
    }
    println!("{rounds} rounds; at first {first:?}, at most {most} KiB, at last {:?}", held(&server, first));
}

fn bash(script: &str) -> Value {
    json!({"processType": "shell", "command": "bash", "args": ["-c", script], "options": {"pty": false}})
}

/// What clients do, and then rest.
async fn round(server: &Server) {
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
    let python = wire.spawn(json!({"processType": "python", "command": "-c", "args": ["print('x')"]})).await;
    wire.run_to_exit(python).await;
    let tree = wire.spawn(bash("(setsid sleep 1000 &); sleep 1000 & echo up; wait")).await;
    wire.stdout_until(tree, "up").await;
    // A viewer that comes, takes nothing and goes.
    other.send(&json!({"type": "attach", "id": 1, "pid": tree})).await;
    drop(other);
    assert_eq!(wire.request(json!({"type": "kill", "id": 2, "pid": tree})).await["type"], "killed");
    drop(wire);
    eventually_async(SOON, "rest", async || {
        let mut wire = Wire::connect(server.address()).await;
        let list = wire.request(json!({"type": "list", "id": 1})).await;
        (list["stats"]["active"] == 0).then_some(())
    })
    .await;
}

/// What is held when no more descriptors and processes are left than at first, and no zombie. If they never are, the test fails.
/// Fewer are as good: supervisors that rest between two rounds leave when the next one is late.
fn held(server: &Server, first: Option<Held>) -> Held {
    let now = || {
        let descendants = server.descendants();
        let own: Vec<i32> =
            descendants.iter().map(|process| process.os_pid).chain([server.os_pid()]).collect();
        Held {
            pss_kib: own.iter().filter_map(|pid| pss_kib(*pid)).sum(),
            fds: [Some(server.os_pid()), bridge(server).map(|pid| pid.as_raw_nonzero().get())]
                .into_iter()
                .flatten()
                .filter_map(|pid| Some(std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count()))
                .sum(),
            zombies: descendants.iter().filter(|process| process.state == 'Z').count(),
            processes: own.len(),
        }
    };
    let within = |held: &Held, most: &Held| held.fds <= most.fds && held.processes <= most.processes;
    // The last connection's end may be on its way. Before there is anything to compare with, two looks must agree.
    let mut before = first.unwrap_or_else(now);
    let begun = Instant::now();
    eventually(SOON, "as little as at first", || {
        let held = now();
        let at_rest = held.zombies == 0 && within(&held, &before);
        assert!(at_rest || begun.elapsed() < SOON / 2, "{held:?} is left, and at first it was {before:?}");
        before = first.unwrap_or(held);
        at_rest.then_some(held)
    })
}

fn pss_kib(pid: i32) -> Option<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?.split_whitespace().next()?.parse().ok()
}
