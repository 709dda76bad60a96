//! The bridge parses what strangers send, so it may die at any time: nothing is lost by that but connections.

use std::time::Duration;

use mhnos_testing::{Server, Wire, WireOptions, eventually, eventually_async};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    requests::{assert_serves, bash, bridge, kill, numbers, with_options},
    start,
};

/// Longest time for what takes milliseconds.
const SOON: Duration = Duration::from_secs(20);

/// Kills the bridge; connections wait in the listening socket until the next one takes them.
#[track_caller]
pub(crate) fn kill_bridge(server: &Server) {
    let first = eventually(SOON, "a bridge", || bridge(server));
    kill_process(first, Signal::KILL).expect("it is ours");
    eventually(SOON, "another bridge", || bridge(server).filter(|next| *next != first));
}

async fn attach(wire: &mut Wire, pid: u64, after: u64) -> Value {
    let attached = wire.request(json!({"type": "attach", "id": "again", "pid": pid, "after": after})).await;
    assert_eq!(attached["type"], "attached", "{attached}");
    attached
}

/// Five bridges die while one program writes: together they deliver every byte once.
#[tokio::test]
async fn a_killed_bridge_comes_back_and_output_goes_on_at_the_same_byte() {
    for terminal in [false, true] {
        let server = start();
        let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
        let script = "i=0; while [ $i -lt 100000 ]; do echo $i; i=$((i+1)); done; exit 6";
        let pid = wire.spawn(with_options(bash(script), json!({"pty": terminal}))).await;
        let line_end = if terminal { "\r\n" } else { "\n" };
        let expected = numbers(0..100_000, line_end);
        let (mut text, mut after) = (String::new(), 0);
        for round in 1..=5 {
            while text.len() < round * expected.len() / 10 {
                let message =
                    wire.next_where(|message| message["pid"] == pid && message["id"].is_null()).await;
                assert_eq!(message["type"], "stdout", "terminal {terminal}: {message}");
                text += message["data"].as_str().expect("text");
                after = message["seq"].as_u64().expect("a position");
                assert_eq!(after, text.len() as u64, "terminal {terminal}");
            }
            kill_bridge(&server);
            wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
            wire.send(&json!({"type": "attach", "id": "again", "pid": pid, "after": after})).await;
        }
        let (rest, _, exit) = wire.run_to_exit(pid).await;
        text += &rest;
        assert_eq!(text.len(), expected.len(), "terminal {terminal}");
        assert!(text == expected, "bytes lost or doubled, terminal {terminal}");
        assert_eq!((&exit["code"], &exit["reason"]), (&json!(6), &json!("exited")), "{exit}");
    }
}

#[tokio::test]
async fn programs_can_still_be_written_to_resized_and_killed() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let reader = wire.spawn(bash("echo ready; while read line; do echo got $line; done; echo end")).await;
    wire.stdout_until(reader, "ready").await;
    let script = "echo ready; while read line; do stty size; echo line $line; done";
    let terminal = wire.spawn(with_options(bash(script), json!({"pty": {"cols": 80, "rows": 24}}))).await;
    wire.stdout_until(terminal, "ready").await;
    let stubborn = wire.spawn(bash("trap '' TERM; echo ready; while :; do sleep 1000; done")).await;
    wire.stdout_until(stubborn, "ready").await;
    kill_bridge(&server);
    let mut wire = Wire::connect(server.address()).await;
    for pid in [reader, terminal, stubborn] {
        attach(&mut wire, pid, 0).await;
    }
    wire.send(&json!({"type": "write", "pid": reader, "data": "a\n"})).await;
    wire.stdout_until(reader, "got a\n").await;
    wire.send(&json!({"type": "closeStdin", "pid": reader})).await;
    assert_eq!(wire.run_to_exit(reader).await.0, "end\n");
    wire.send(&json!({"type": "resize", "pid": terminal, "cols": 132, "rows": 43})).await;
    wire.send(&json!({"type": "write", "pid": terminal, "data": "b\r"})).await;
    assert!(wire.stdout_until(terminal, "line b").await.contains("43 132"));
    assert_eq!(kill(&mut wire, terminal).await["type"], "killed");
    assert_eq!(kill(&mut wire, stubborn).await["type"], "killed");
    assert_eq!(wire.run_to_exit(stubborn).await.2["signal"], "SIGKILL");
}

#[tokio::test]
async fn numbers_counts_and_what_has_ended_are_still_known() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let ended = wire.spawn(bash("echo last words; exit 3")).await;
    wire.run_to_exit(ended).await;
    let killed = wire.spawn(bash("echo ready; sleep 1000")).await;
    wire.stdout_until(killed, "ready").await;
    kill(&mut wire, killed).await;
    let running = wire.spawn(bash("echo ready; sleep 1000")).await;
    wire.stdout_until(running, "ready").await;
    let before = wire.request(json!({"type": "list", "id": 1, "all": true})).await;
    kill_bridge(&server);
    let mut wire = Wire::connect(server.address()).await;
    let after = wire.request(json!({"type": "list", "id": 1, "all": true})).await;
    assert_eq!(after, before);
    wire.send(&json!({"type": "attach", "id": 2, "pid": ended})).await;
    let (stdout, _, exit) = wire.run_to_exit(ended).await;
    assert_eq!((stdout.as_str(), &exit["code"]), ("last words\n", &json!(3)));
    let next = wire.spawn(bash("true")).await;
    assert!(next > running, "{next}: no number is used twice");
}

#[tokio::test]
async fn a_program_that_ends_meanwhile_is_told_of_by_the_next_bridge() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let pid = wire.spawn(bash("echo ready; until [ -e go ]; do sleep 0.01; done; echo late; exit 8")).await;
    wire.stdout_until(pid, "ready").await;
    let first = bridge(&server).expect("there is a bridge");
    kill_process(first, Signal::STOP).expect("it is ours");
    server.write("go", "");
    eventually(SOON, "the program ends", || {
        crate::requests::alive(&server, "until [ -e go ]").is_empty().then_some(())
    });
    kill_process(first, Signal::KILL).expect("it is ours");
    let mut wire = Wire::connect(server.address()).await;
    wire.send(&json!({"type": "attach", "id": 1, "pid": pid})).await;
    let (stdout, _, exit) = wire.run_to_exit(pid).await;
    assert_eq!((stdout.as_str(), &exit["code"]), ("ready\nlate\n", &json!(8)));
}

/// A bridge that dies again and again, at any moment of a burst of spawns: no place and no program is lost.
#[tokio::test]
async fn spawns_that_it_had_not_answered_leave_no_ghosts() {
    let server = start();
    for _ in 0..5 {
        let mut wire = Wire::connect(server.address()).await;
        for id in 0..20 {
            let mut spawn = bash("sleep 4326");
            spawn["type"] = "spawn".into();
            spawn["id"] = id.into();
            wire.send(&spawn).await;
        }
        wire.next_where(|message| message["type"] == "spawned").await;
        kill_bridge(&server);
        let mut wire = Wire::connect(server.address()).await;
        // What was being started when the bridge died comes a moment later; its place is taken from the beginning.
        let listed = eventually_async(SOON, "all that has a place is listed", async || {
            let list = wire.request(json!({"type": "list", "id": 1})).await;
            let listed = list["processes"].as_array().expect("an array").clone();
            (list["stats"]["active"] == listed.len()).then_some(listed)
        })
        .await;
        for process in listed {
            let kill =
                json!({"type": "kill", "id": process["pid"], "pid": process["pid"], "signal": "SIGKILL"});
            assert_eq!(wire.request(kill).await["type"], "killed");
        }
        assert_eq!(crate::requests::alive(&server, "sleep 4326"), Vec::<String>::new());
        assert_serves(&mut wire).await;
    }
}
