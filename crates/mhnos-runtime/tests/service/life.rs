//! Starting, stopping, and being killed.

use std::time::Duration;

use mhnos_testing::{Server, Wire, WireOptions, eventually};
use rustix::process::{Signal, kill_process};
use serde_json::json;

use crate::{bridge, options, start};

/// A program that ends on nothing but SIGKILL, with a descendant in a session of its own that does the same.
const STUBBORN: &str = "trap '' TERM INT HUP; setsid bash -c \"trap '' TERM INT HUP; sleep 1000; sleep 1000\" & \
                        echo ready; sleep 1000; sleep 1000";

/// Longest time for what takes milliseconds.
const SOON: Duration = Duration::from_secs(20);

async fn spawn_stubborn(wire: &mut Wire) -> u64 {
    let pid = wire.spawn(json!({"processType": "shell", "command": "bash", "args": ["-c", STUBBORN]})).await;
    wire.stdout_until(pid, "ready").await;
    pid
}

#[tokio::test]
async fn a_drain_ends_programs_tells_clients_and_leaves_nothing() {
    let mut server = start();
    let mut wire = Wire::connect(server.address()).await;
    let pid = spawn_stubborn(&mut wire).await;
    server.signal(Signal::TERM);
    let exit = wire.next_where(|message| message["type"] == "exit" && message["pid"] == pid).await;
    assert_eq!((&exit["reason"], &exit["signal"]), (&json!("shutdown"), &json!("SIGKILL")), "{exit}");
    let close = wire.closed().await.expect("a close frame");
    assert_eq!(u16::from(close.code), 1001);
    assert!(server.wait(SOON).success());
    server.assert_nothing_left();
}

#[tokio::test]
async fn nothing_is_spawned_during_a_drain() {
    let mut server = start();
    let mut wire = Wire::connect(server.address()).await;
    spawn_stubborn(&mut wire).await;
    server.signal(Signal::INT);
    let refusal = async {
        loop {
            let answer = wire
                .request(
                    json!({"type": "spawn", "id": 2, "processType": "node", "command": "-p", "args": ["1"]}),
                )
                .await;
            if answer["type"] == "error" {
                return answer;
            }
        }
    };
    let refused = tokio::time::timeout(SOON, refusal).await.expect("the drain begins");
    assert!(refused["code"].is_string(), "{refused}");
    assert!(server.wait(SOON).success());
}

#[tokio::test]
async fn nothing_outlives_the_keeper() {
    let mut server = start();
    let mut wire = Wire::connect(server.address()).await;
    spawn_stubborn(&mut wire).await;
    server.kill();
    server.assert_nothing_left();
}

#[tokio::test]
async fn a_killed_bridge_comes_back_and_output_goes_on_at_the_same_byte() {
    let server = start();
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let script = "i=0; while [ $i -lt 200000 ]; do echo $i; i=$((i+1)); done";
    let options = json!({"pty": false});
    let pid = wire
        .spawn(json!({"processType": "shell", "command": "bash", "args": ["-c", script], "options": options}))
        .await;
    let (mut text, mut after) = (String::new(), 0);
    while text.len() < 20_000 {
        let message = wire.next_where(|message| message["type"] == "stdout" && message["pid"] == pid).await;
        text += message["data"].as_str().expect("text");
        after = message["seq"].as_u64().expect("a position");
    }
    kill_process(bridge(&server).expect("there is a bridge"), Signal::KILL).expect("it is ours");
    drop(wire);
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    wire.send(&json!({"type": "attach", "id": "again", "pid": pid, "after": after})).await;
    let (rest, _, exit) = wire.run_to_exit(pid).await;
    let expected: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    assert_eq!(text.len() + rest.len(), expected.len());
    assert!(text + &rest == expected, "bytes lost or doubled");
    assert_eq!((&exit["code"], &exit["reason"]), (&json!(0), &json!("exited")));
}

#[tokio::test]
async fn programs_outlive_their_connection() {
    let server = start();
    server.write(
        "late.mjs",
        "process.stdin.on('data', (data) => { console.log('got ' + data); process.exit(4); });\n",
    );
    let mut wire = Wire::connect(server.address()).await;
    let pid = wire.spawn(json!({"processType": "node", "command": "/late.mjs"})).await;
    drop(wire);
    let mut wire = Wire::connect(server.address()).await;
    let attached = wire.request(json!({"type": "attach", "id": 1, "pid": pid})).await;
    assert_eq!(attached["type"], "attached", "{attached}");
    wire.send(&json!({"type": "write", "pid": pid, "data": "x"})).await;
    let (stdout, _, exit) = wire.run_to_exit(pid).await;
    assert_eq!((stdout.as_str(), &exit["code"]), ("got x\n", &json!(4)));
}

#[test]
fn a_port_in_use_is_an_error() {
    let server = start();
    let port = server.address().port().to_string();
    let failure =
        Server::try_start(options().env("MHNOS_RUNTIME_PORT", &port)).expect_err("the port is taken");
    assert!(!failure.status.success());
    assert!(failure.stderr.contains(&port), "{}", failure.stderr);
}

#[test]
fn mistakes_in_settings_are_told_together() {
    let wrong = options()
        .env("MHNOS_MAX_MEMORY", "lots")
        .env("MHNOS_SANDBOX", "tight")
        .env("MHNOS_MAX_PROCESSES", "0");
    let failure = Server::try_start(wrong).expect_err("nothing is served");
    assert_eq!(failure.status.code(), Some(2));
    for name in ["MHNOS_MAX_MEMORY", "MHNOS_SANDBOX", "MHNOS_MAX_PROCESSES"] {
        assert!(failure.stderr.contains(name), "{}", failure.stderr);
    }
}

#[tokio::test]
async fn health_tells_version_mode_and_tier() {
    let server = start();
    let reply = server.get("/health");
    assert_eq!(reply.status, 200);
    for word in ["version", "tier", "strict"] {
        assert!(reply.body.contains(word), "{word}: {}", reply.body);
    }
}

#[tokio::test]
async fn ordinary_traffic_is_not_logged_at_info() {
    let server = Server::start(options().env("MHNOS_LOG_LEVEL", "info"));
    let before = server.log().lines().count();
    let mut wire = Wire::connect(server.address()).await;
    for id in 0..20 {
        assert_eq!(wire.request(json!({"type": "ping", "id": id})).await["type"], "pong");
    }
    let logged = server.log().lines().count() - before;
    assert!(logged < 5, "{}", server.log());
}

#[tokio::test]
async fn killing_the_bridge_twice_is_survived() {
    let server = start();
    for _ in 0..2 {
        let first = eventually(SOON, "a bridge", || bridge(&server));
        kill_process(first, Signal::KILL).expect("it is ours");
        eventually(SOON, "another bridge", || bridge(&server).filter(|next| *next != first));
        assert_eq!(server.get("/health").status, 200);
    }
}
