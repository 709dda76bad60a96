//! Input of every wrong kind gets an answer, and the service stays.

use mhnos_testing::{Wire, http_get, http_raw};
use serde_json::{Value, json};

use crate::start;

/// Frames that are no request at all.
const FRAMES: &[&str] = &[
    "",
    " ",
    "{",
    "nonsense",
    "\u{feff}{}",
    "{} {}",
    "null",
    "42",
    "\"s\"",
    "[]",
    "{}",
    "true",
    "{\"type\":null}",
    "{\"type\":5}",
    "{\"type\":[\"ping\"]}",
    "{\"type\":\"constructor\"}",
    "{\"type\":\"toString\"}",
    "{\"type\":\"__proto__\"}",
    "{\"type\":\"hasOwnProperty\"}",
    "{\"type\":\"\u{0}\"}",
];

/// Requests with something wrong in them; all need a pid that there is not, or no pid.
fn requests() -> Vec<Value> {
    let spawn = |change: Value| {
        let mut message = json!({"type": "spawn", "processType": "node", "command": "-p", "args": ["1"]});
        for (key, value) in change.as_object().expect("an object") {
            message[key] = value.clone();
        }
        message
    };
    let file = |change: Value| json!({"type": "fsync", "operation": "push", "files": change});
    vec![
        json!({"type": "nonsense"}),
        spawn(json!({"processType": "ruby"})),
        spawn(json!({"processType": null})),
        spawn(json!({"command": 5})),
        spawn(json!({"command": {}})),
        spawn(json!({"command": "../outside.js", "args": []})),
        spawn(json!({"command": "/no/such/script.js", "args": []})),
        spawn(json!({"args": "-p 1"})),
        spawn(json!({"args": [1, {}]})),
        spawn(json!({"args": ["a\u{0}b"]})),
        spawn(json!({"options": 5})),
        spawn(json!({"options": {"cwd": 5}})),
        spawn(json!({"options": {"cwd": "/no/such/directory"}})),
        spawn(json!({"options": {"cwd": "../.."}})),
        spawn(json!({"options": {"env": {"A=B": "c"}}})),
        spawn(json!({"options": {"env": {"A": "\u{0}"}}})),
        spawn(json!({"options": {"timeout": -1}})),
        spawn(json!({"options": {"pty": {"cols": 0, "rows": 5}}})),
        spawn(json!({"options": {"encoding": "latin1"}})),
        json!({"type": "attach"}),
        json!({"type": "attach", "pid": 4_000_000}),
        json!({"type": "attach", "pid": "1000"}),
        json!({"type": "attach", "pid": 1.5}),
        json!({"type": "attach", "pid": -1}),
        json!({"type": "write", "pid": 4_000_000, "data": "x"}),
        json!({"type": "write", "pid": 1000, "data": 5}),
        json!({"type": "resize", "pid": 4_000_000, "cols": 80, "rows": 24}),
        json!({"type": "resize", "pid": 1000, "cols": 0, "rows": 24}),
        json!({"type": "resize", "pid": 1000, "cols": 1e9, "rows": 24}),
        json!({"type": "resize", "pid": 1000, "cols": "80", "rows": 24}),
        json!({"type": "kill", "pid": 4_000_000}),
        json!({"type": "kill", "pid": 1000, "signal": "SIGNONSENSE"}),
        json!({"type": "kill", "pid": 1000, "signal": -1}),
        json!({"type": "kill"}),
        json!({"type": "closeStdin", "pid": 4_000_000}),
        json!({"type": "fsync"}),
        json!({"type": "fsync", "operation": "steal"}),
        file(json!({})),
        file(json!("x")),
    ]
}

#[tokio::test]
async fn frames_that_are_no_request_get_an_error() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    for frame in FRAMES {
        wire.send_text(frame).await;
        let answer = wire.next().await;
        assert_eq!(answer["type"], "error", "{frame:?}: {answer}");
        assert!(answer["error"].is_string() && answer["code"].is_string(), "{frame:?}: {answer}");
    }
    assert_eq!(wire.request(json!({"type": "ping", "id": 1})).await["type"], "pong");
}

#[tokio::test]
async fn requests_with_a_wrong_value_get_an_error_with_their_id() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    for (number, mut request) in requests().into_iter().enumerate() {
        request["id"] = json!({"number": number});
        let answer = wire.request(request.clone()).await;
        assert_eq!(answer["type"], "error", "{request}: {answer}");
        assert!(answer["error"].is_string() && answer["code"].is_string(), "{request}: {answer}");
    }
    let status = wire.request(json!({"type": "status", "id": 1})).await;
    assert_eq!(status["stats"]["active"], 0, "{status}");
}

#[tokio::test]
async fn any_id_comes_back_as_it_was() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    for id in [
        json!("x"),
        json!(0),
        json!(-1.5),
        json!(true),
        json!([1, "a"]),
        json!({"a": {"b": []}}),
        json!("é\u{0}\n"),
    ] {
        let answer = wire.request(json!({"type": "ping", "id": id})).await;
        assert_eq!(answer["id"], id);
    }
}

#[tokio::test]
async fn broken_http_and_foreign_pages_are_refused_and_others_served_meanwhile() {
    let server = start();
    let address = server.address();
    for bytes in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
        &[0xff; 70_000],
    ] {
        let answer = http_raw(address, bytes);
        assert!(answer.is_err() || !answer.expect("checked").starts_with(b"HTTP/1.1 2"));
    }
    let evil = http_get(address, "/health", &["Host: evil.example"]).expect("an answer");
    assert!((400..500).contains(&evil.status), "{evil:?}");
    let evil = http_get(address, "/health", &["Origin: http://localhost.evil.example"]).expect("an answer");
    assert_eq!(evil.status, 403, "{evil:?}");
    assert_eq!(server.get("/health").status, 200);
}
