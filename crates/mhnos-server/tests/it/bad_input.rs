//! Whatever a client sends gets an answer, and the connection goes on.

use mhnos_testing::{Wire, WireOptions};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use crate::keeper::Service;

async fn errors(service: &Service, cases: &[(Value, &str)]) {
    let mut wire = Wire::connect_as(service.address, WireOptions::modern()).await;
    for (request, code) in cases {
        let mut request = request.clone();
        request["id"] = "x".into();
        let answer = wire.request(request.clone()).await;
        assert_eq!(
            (&answer["type"], &answer["code"]),
            (&json!("error"), &json!(code)),
            "{request} gave {answer}"
        );
        assert!(answer["error"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
    }
    assert_eq!(wire.request(json!({"type": "ping", "id": "p"})).await["type"], "pong");
}

#[tokio::test]
async fn what_is_no_message_is_answered_without_an_id() {
    let service = Service::start();
    let mut wire = Wire::connect(service.address).await;
    for text in [
        "",
        "{",
        "null",
        "42",
        "\"s\"",
        "[]",
        "{}",
        "{\"type\":1}",
        "\u{feff}{}",
        "{} {}",
        "{\"type\":\"constructor\"}",
    ] {
        wire.send_text(text).await;
        let answer = wire.next().await;
        assert_eq!(answer["type"], "error", "{text:?}: {answer}");
        assert!(answer.get("id").is_none() && answer["code"].is_string(), "{answer}");
    }
    wire.send_text(&"[".repeat(100_000)).await;
    assert_eq!(wire.next().await["type"], "error");
    wire.send_message(Message::binary(&b"{\"type\":\"ping\",\"id\":1}"[..])).await.expect("sent");
    assert_eq!(wire.next().await["type"], "pong");
}

#[tokio::test]
async fn wrong_requests_name_what_is_wrong() {
    let service = Service::start();
    let cases = [
        (json!({"type": "toString"}), "UNKNOWN_TYPE"),
        (json!({"type": "spawn"}), "UNKNOWN_PROCESS_TYPE"),
        (json!({"type": "spawn", "processType": "perl"}), "UNKNOWN_PROCESS_TYPE"),
        (json!({"type": "spawn", "processType": "shell", "args": "abc"}), "INVALID_VALUE"),
        (json!({"type": "spawn", "processType": "shell", "args": ["a\u{0}b"]}), "INVALID_VALUE"),
        (json!({"type": "spawn", "processType": "shell", "options": {"timeout": -1}}), "INVALID_VALUE"),
        (json!({"type": "spawn", "processType": "python", "command": "missing.py"}), "PATH_NOT_FOUND"),
        (
            json!({"type": "spawn", "processType": "python", "command": "../../etc/passwd"}),
            "PATH_OUTSIDE_WORKSPACE",
        ),
        (json!({"type": "spawn", "processType": "shell", "options": {"cwd": "/nowhere"}}), "PATH_NOT_FOUND"),
        (json!({"type": "spawn", "processType": "openclaw"}), "NOT_ALLOWED"),
        (json!({"type": "attach", "pid": 4711}), "PROCESS_NOT_FOUND"),
        (json!({"type": "attach", "pid": "1000"}), "INVALID_VALUE"),
        (json!({"type": "attach"}), "MISSING_FIELD"),
        (json!({"type": "write", "pid": 4711, "data": "x"}), "PROCESS_NOT_FOUND"),
        (json!({"type": "resize", "pid": 4711, "cols": 80, "rows": 24}), "PROCESS_NOT_FOUND"),
        (json!({"type": "resize", "pid": 4711, "cols": 0, "rows": 24}), "INVALID_VALUE"),
        (json!({"type": "closeStdin", "pid": 4711}), "PROCESS_NOT_FOUND"),
        (json!({"type": "kill", "pid": 4711}), "PROCESS_NOT_FOUND"),
        (json!({"type": "kill", "pid": 4711, "signal": "SIGFOO"}), "UNKNOWN_SIGNAL"),
        (json!({"type": "fsync", "operation": "sync"}), "UNKNOWN_OPERATION"),
        (json!({"type": "fsync", "operation": "push", "files": {}}), "INVALID_VALUE"),
    ];
    errors(&service, &cases).await;
}

#[tokio::test]
async fn a_process_that_exists_refuses_what_it_cannot_do() {
    let service = Service::start();
    let mut wire = Wire::connect_as(service.address, WireOptions::modern()).await;
    let spawn = json!({"processType": "shell", "args": ["-c", "sleep 60"], "options": {"pty": false, "stdin": "null"}});
    let pid = wire.spawn(spawn).await;
    let refused = wire.request(json!({"type": "write", "id": 1, "pid": pid, "data": "x"})).await;
    assert_eq!((&refused["code"], &refused["pid"]), (&json!("STDIN_CLOSED"), &json!(pid)));
    let resized = wire.request(json!({"type": "resize", "id": 2, "pid": pid, "cols": 80, "rows": 24})).await;
    assert_eq!(resized["type"], "resized", "without a terminal it is ignored");
    // Without an id success is silent.
    wire.send(&json!({"type": "resize", "pid": pid, "cols": 80, "rows": 24})).await;
    assert_eq!(wire.request(json!({"type": "ping", "id": 3})).await["type"], "pong");
}

#[tokio::test]
async fn a_process_that_does_not_read_fills_its_queue_and_nothing_else() {
    let service = Service::start();
    let mut wire = Wire::connect_as(service.address, WireOptions::modern()).await;
    let pid = wire
        .spawn(json!({"processType": "shell", "args": ["-c", "sleep 60"], "options": {"pty": false}}))
        .await;
    let paste = "x".repeat(3 << 20);
    wire.send(&json!({"type": "write", "id": "full", "pid": pid, "data": paste})).await;
    // What waits for room holds up no other request.
    assert_eq!(wire.request(json!({"type": "ping", "id": "p"})).await["type"], "pong");
    let refused = wire.next_where(|value| value["id"] == "full").await;
    assert_eq!(refused["code"], "STDIN_FULL", "{refused}");
}

#[tokio::test]
async fn breaking_the_web_socket_protocol_closes_with_the_reason() {
    let service = Service::start();
    let mut wire = Wire::connect(service.address).await;
    // 101 MiB in one frame.
    let _ = wire.send_message(Message::binary(vec![b' '; 101 << 20])).await;
    assert_eq!(wire.closed().await.expect("a close frame").code, CloseCode::Size);
    let mut other = Wire::connect(service.address).await;
    other.send_text(&format!("{{\"type\":\"ping\",\"id\":1,\"x\":\"{}\"}}", "y".repeat(2 << 20))).await;
    assert_eq!(other.next().await["type"], "pong");
}
