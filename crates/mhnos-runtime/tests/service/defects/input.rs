//! What is written to a program reaches it, or is refused; neither harms anybody.

use std::time::{Duration, Instant};

use mhnos_testing::Wire;
use serde_json::json;

use crate::{
    requests::{assert_serves, bash, bash_on_terminal, kill, numbers},
    start,
};

/// Defect 1.
#[tokio::test]
async fn writing_to_a_program_that_does_not_read_or_has_ended_harms_nobody() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let bystander = wire.spawn(bash("echo here; read line; echo got $line")).await;
    wire.stdout_until(bystander, "here").await;
    // Its input is closed by itself; it ends when the file appears.
    let closed = wire.spawn(bash("exec 0<&-; echo closed; until [ -e go ]; do sleep 0.01; done")).await;
    wire.stdout_until(closed, "closed").await;
    for _ in 0..50 {
        wire.send(&json!({"type": "write", "pid": closed, "data": "into the void\n"})).await;
    }
    assert_serves(&mut wire).await;
    server.write("go", "");
    wire.run_to_exit(closed).await;
    let answer = wire.request(json!({"type": "write", "id": 1, "pid": closed, "data": "x"})).await;
    assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("PROCESS_EXITED")), "{answer}");
    let deaf = wire.spawn(bash("echo deaf; sleep 1000")).await;
    wire.stdout_until(deaf, "deaf").await;
    let big = "x".repeat(1 << 20);
    for _ in 0..10 {
        wire.send(&json!({"type": "write", "pid": deaf, "data": big})).await;
    }
    assert_eq!(kill(&mut wire, deaf).await["type"], "killed");
    wire.send(&json!({"type": "write", "pid": bystander, "data": "news\n"})).await;
    assert_eq!(wire.run_to_exit(bystander).await.0, "got news\n");
}

/// Defect 1: the instant between the program's end and the service's knowledge of it.
#[tokio::test]
async fn writes_that_race_with_the_end_harm_nobody() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    for round in 0..60 {
        let spawn = if round % 3 == 0 { bash_on_terminal("echo x") } else { bash("echo x") };
        let pid = wire.spawn(spawn).await;
        for id in 0..20 {
            let id = format!("{round} {id}");
            wire.send(&json!({"type": "write", "id": id, "pid": pid, "data": "word\n"})).await;
        }
        wire.run_to_exit(pid).await;
        for id in 0..20 {
            let id = format!("{round} {id}");
            let answer = wire.next_where(|message| message["id"] == id).await;
            assert!(answer["type"] == "written" || answer["type"] == "error", "{answer}");
        }
    }
    assert_serves(&mut wire).await;
}

/// A paste in many pieces waits for such a program once, not piece by piece: whoever sends an interrupt behind it is
/// not kept.
#[tokio::test]
async fn many_writes_to_a_program_that_does_not_read_are_refused_together() {
    const PIECES: usize = 160;
    /// One stall, the grace period, and what a busy machine takes; as many stalls as there are pieces beyond the queue
    /// would be five minutes.
    const SOON: Duration = Duration::from_secs(20);
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let deaf = wire.spawn(bash("echo deaf; sleep 1000")).await;
    wire.stdout_until(deaf, "deaf").await;
    let piece = "x".repeat(64 << 10);
    let began = Instant::now();
    for id in 0..PIECES {
        wire.send(&json!({"type": "write", "id": id, "pid": deaf, "data": piece})).await;
    }
    assert_eq!(kill(&mut wire, deaf).await["type"], "killed");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    let mut taken = 0;
    for id in 0..PIECES {
        let answer = wire.next_where(|message| message["id"] == id).await;
        taken += match answer["code"].as_str() {
            None => piece.len() as u64,
            Some("STDIN_FULL") => answer["taken"].as_u64().unwrap_or(0),
            Some(_) => panic!("{answer}"),
        };
    }
    assert!((1 << 20..3 << 20).contains(&taken), "{taken} bytes: the queue's and the pipe's");
}

#[tokio::test]
async fn what_is_written_before_the_end_of_input_is_read_first() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let pid = wire.spawn(bash("cat; echo end")).await;
    for number in 0..200 {
        wire.send(&json!({"type": "write", "pid": pid, "data": format!("{number} ")})).await;
    }
    let closed = wire.request(json!({"type": "closeStdin", "id": 1, "pid": pid})).await;
    assert_eq!(closed["type"], "stdinClosed", "{closed}");
    let late = wire.request(json!({"type": "write", "id": 2, "pid": pid, "data": "late"})).await;
    assert_eq!(late["type"], "error", "{late}");
    let expected = numbers(0..200, " ");
    assert_eq!(wire.run_to_exit(pid).await.0, expected + "end\n");
}
