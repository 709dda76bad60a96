//! What only the unmodified Web OS page gets. Numbers are those of its client's facts.

use mhnos_testing::{Wire, WireOptions};
use serde_json::{Value, json};

use crate::{keeper::Service, no_time_passes};

async fn page(service: &Service) -> Wire {
    Wire::connect_as(service.address, WireOptions::browser()).await
}

fn python(script: &str) -> Value {
    json!({"processType": "python", "command": "-c", "args": [script], "options": {"cwd": "/"}})
}

#[tokio::test]
async fn fact_8_ping_detach_and_fsync_are_answered_a_second_time_as_status() {
    let service = Service::start();
    let mut wire = page(&service).await;
    let mut twins = async |request: Value| {
        wire.send(&request).await;
        (wire.next().await, wire.next().await)
    };
    let (pong, twin) = twins(json!({"type": "ping", "id": "req-1"})).await;
    assert_eq!(
        (&pong["type"], &twin["type"], &twin["id"]),
        (&json!("pong"), &json!("status"), &json!("req-1"))
    );
    assert_eq!(pong["time"], twin["time"]);

    let (detached, twin) = twins(json!({"type": "detach", "id": "req-2", "pid": 1000})).await;
    assert_eq!((&detached["type"], &twin["type"]), (&json!("detached"), &json!("status")));

    let push = json!({"type": "fsync", "id": "req-3", "operation": "push", "files": [{"path": "/a", "kind": "file", "content": [104, 105]}]});
    let (pushed, twin) = twins(push).await;
    assert_eq!((&pushed["type"], &twin["type"]), (&json!("fsyncResult"), &json!("status")));
    assert_eq!(twin["results"]["synced"], 1);

    let (pulled, twin) = twins(json!({"type": "fsync", "id": "req-4", "operation": "pull"})).await;
    assert_eq!(
        (&pulled["type"], &twin["type"], &twin["id"]),
        (&json!("fsyncResult"), &json!("status"), &json!("req-4"))
    );
    assert_eq!(twin["files"][0]["content"], json!([104, 105]));
}

#[tokio::test]
async fn fact_28_a_push_with_failures_is_an_error() {
    let service = Service::start();
    let mut wire = page(&service).await;
    wire.send(&json!({"type": "fsync", "id": "req-1", "operation": "push", "files": [
        {"path": "/ok", "kind": "file", "content": []},
        {"path": "/../../x", "kind": "file", "content": []},
    ]}))
    .await;
    assert_eq!(wire.next().await["type"], "fsyncResult");
    let error = wire.next().await;
    assert_eq!((&error["type"], &error["id"]), (&json!("error"), &json!("req-1")));
    assert!(error["error"].as_str().is_some_and(|text| text.contains("/../../x")), "{error}");
}

#[tokio::test]
async fn other_clients_get_no_second_answer() {
    let service = Service::start();
    for options in [
        WireOptions::default(),
        WireOptions::modern(),
        WireOptions::browser().header("Sec-WebSocket-Protocol", "mhnos.v1"),
    ] {
        let mut wire = Wire::connect_as(service.address, options).await;
        wire.send(&json!({"type": "ping", "id": 1})).await;
        wire.send(&json!({"type": "ping", "id": 2})).await;
        assert_eq!((&wire.next().await["id"], &wire.next().await["id"]), (&json!(1), &json!(2)));
    }
}

#[tokio::test]
async fn fact_18_the_exit_of_a_short_program_waits_for_the_attach() {
    let service = Service::start();
    let mut wire = page(&service).await;
    let pid = wire.spawn(python("print('hi')")).await;
    // It has ended: nothing runs any more.
    loop {
        let list = wire.request(json!({"type": "list", "id": "l"})).await;
        if list["processes"] == json!([]) {
            break;
        }
    }
    wire.send(&json!({"type": "attach", "id": "a", "pid": pid})).await;
    wire.send(&json!({"type": "resize", "pid": pid, "cols": 80, "rows": 24})).await;
    let mut kinds = Vec::new();
    while kinds.last().is_none_or(|kind| kind != "exit") {
        let value = wire.next_where(|value| value["type"] != "error").await;
        kinds.push(value["type"].as_str().expect("a type").to_owned());
    }
    assert_eq!(kinds[kinds.len() - 3..], ["stdout", "attached", "exit"], "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| *kind == "exit").count(), 1);
}

#[tokio::test]
async fn fact_20_the_exit_reaches_a_spawner_that_has_detached() {
    let service = Service::start();
    let mut wire = page(&service).await;
    let pid = wire.spawn(python("input()")).await;
    wire.request(json!({"type": "attach", "id": "a", "pid": pid})).await;
    wire.request(json!({"type": "detach", "id": "d", "pid": pid})).await;
    wire.send(&json!({"type": "write", "pid": pid, "data": "\n"})).await;
    let exit = wire.next_where(|value| value["type"] == "exit").await;
    assert_eq!((&exit["pid"], &exit["code"]), (&json!(pid), &json!(0)));
}

#[tokio::test]
async fn an_exit_is_told_once_however_often_a_client_detaches() {
    let service = Service::start();
    let mut wire = page(&service).await;
    let pid = wire.spawn(python("input()")).await;
    wire.request(json!({"type": "attach", "id": "a", "pid": pid})).await;
    wire.request(json!({"type": "detach", "id": "d", "pid": pid})).await;
    wire.request(json!({"type": "detach", "id": "d", "pid": pid})).await;
    wire.send(&json!({"type": "write", "pid": pid, "data": "\n"})).await;
    wire.next_where(|value| value["type"] == "exit").await;
    let mut other = page(&service).await;
    for wire in [&mut wire, &mut other] {
        wire.request(json!({"type": "detach", "id": "e", "pid": pid})).await;
        wire.send(&json!({"type": "ping", "id": "p"})).await;
        loop {
            let value = wire.next().await;
            assert_ne!(value["type"], "exit", "a second one");
            if value["type"] == "pong" {
                break;
            }
        }
    }
}

#[tokio::test]
async fn fact_24_enter_ends_a_line_for_a_program_on_pipes() {
    let service = Service::start();
    let mut wire = page(&service).await;
    let pid = wire.spawn(python("print('got ' + input() + input(), flush=True)")).await;
    wire.request(json!({"type": "attach", "id": "a", "pid": pid})).await;
    wire.send(&json!({"type": "write", "pid": pid, "data": "x"})).await;
    wire.send(&json!({"type": "write", "pid": pid, "data": "\r"})).await;
    wire.send(&json!({"type": "write", "pid": pid, "data": "y\r\n"})).await;
    wire.stdout_until(pid, "got xy").await;
}

#[tokio::test]
async fn fact_26_the_exit_comes_before_killed_whether_attached_or_not() {
    let service = Service::start();
    let mut wire = page(&service).await;
    for attached in [true, false] {
        let pid = wire.spawn(python("import time; time.sleep(60)")).await;
        if attached {
            wire.request(json!({"type": "attach", "id": "a", "pid": pid})).await;
        }
        wire.send(&json!({"type": "kill", "id": "k", "pid": pid, "signal": "SIGTERM"})).await;
        let first = wire.next().await;
        assert_eq!(
            (&first["type"], &first["pid"], &first["signal"]),
            (&json!("exit"), &json!(pid), &json!("SIGTERM"))
        );
        let second = wire.next().await;
        assert_eq!((&second["type"], &second["id"]), (&json!("killed"), &json!("k")));
    }
}

#[tokio::test]
async fn fact_22_small_writes_are_joined() {
    let service = Service::start();
    let mut wire = page(&service).await;
    let script = "import os\nfor i in range(20): os.write(1, b'%d ' % i)\ninput()";
    let pid = wire.spawn(python(script)).await;
    wire.request(json!({"type": "attach", "id": "a", "pid": pid})).await;
    let mut seen = wire.next_where(|value| value["type"] == "stdout").await;
    let mut messages = 1;
    let mut text = seen["data"].as_str().expect("text").to_owned();
    while !text.contains("19") {
        seen = wire.next().await;
        text += seen["data"].as_str().unwrap_or_default();
        messages += 1;
    }
    assert!(messages <= 5, "{messages} messages for 20 small writes");
}

#[tokio::test]
async fn fact_22_a_terminals_echo_waits_for_nothing() {
    let service = Service::start();
    let mut wire = page(&service).await;
    let script = "print('ready', end='', flush=True)\nimport time; time.sleep(60)";
    let spawn = json!({"processType": "python", "command": "-c", "args": [script], "options": {"cwd": "/", "pty": true}});
    let pid = wire.spawn(spawn).await;
    wire.request(json!({"type": "attach", "id": "a", "pid": pid})).await;
    wire.stdout_until(pid, "ready").await;
    let still = no_time_passes();
    for key in ["a", "b", "c", "d"] {
        wire.send(&json!({"type": "write", "pid": pid, "data": key})).await;
        wire.stdout_until(pid, key).await;
    }
    drop(still);
}

#[tokio::test]
async fn fact_18_the_exit_is_held_back_fifteen_seconds_at_most() {
    let service = Service::start();
    let mut wire = page(&service).await;
    let pid = wire.spawn(python("print('hi')")).await;
    wire.stdout_until(pid, "hi").await;
    loop {
        let list = wire.request(json!({"type": "list", "id": "l"})).await;
        if list["processes"] == json!([]) {
            break;
        }
    }
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let exit = wire.next_where(|value| value["type"] == "exit").await;
    assert_eq!(exit["pid"], pid);
    assert!((14..=16).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_drain_tells_exits_that_are_held_back() {
    let mut service = Service::start();
    let mut wire = page(&service).await;
    let pid = wire.spawn(python("print('hi', flush=True); import time; time.sleep(60)")).await;
    wire.stdout_until(pid, "hi").await;
    service.drain();
    let exit = wire.next_where(|value| value["type"] == "exit").await;
    assert_eq!((&exit["pid"], &exit["reason"]), (&json!(pid), &json!("shutdown")));
    assert!(wire.closed().await.is_some());
    service.ended().await.expect("a clean end");
}
