//! Input of every wrong kind gets an answer, and the service stays.

use mhnos_testing::{Server, Wire, http_raw};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    options,
    requests::{assert_serves, bash},
    start,
};

/// Frames that are no request at all.
const FRAMES: &[&str] = &[
    "",
    " ",
    "{",
    "nonsense",
    "\u{feff}{}",
    "\u{feff}{\"type\":\"ping\"}",
    "{} {}",
    "{\"type\":\"ping\"}{\"type\":\"ping\"}",
    "{\"type\":\"ping\",}",
    "{'type':'ping'}",
    "{\"type\":\"ping\",\"x\":NaN}",
    "{\"type\":\"ping\",\"x\":01}",
    "{\"type\":\"ping\",\"x\":\"\\x\"}",
    "{\"type\":\"ping\",\"x\":\"\n\"}",
    "null",
    "42",
    "\"s\"",
    "[]",
    "[{\"type\":\"ping\"}]",
    "{}",
    "true",
    "{\"type\":null}",
    "{\"type\":5}",
    "{\"type\":[\"ping\"]}",
    "{\"type\":\"\"}",
    "{\"type\":\"Ping\"}",
    "{\"type\":\"constructor\"}",
    "{\"type\":\"toString\"}",
    "{\"type\":\"__proto__\"}",
    "{\"type\":\"hasOwnProperty\"}",
    "{\"type\":\"\\u0000\"}",
    "{\"TYPE\":\"ping\"}",
];

/// A spawn that would work, changed in one place.
fn spawn(change: Value) -> Value {
    let mut message = json!({"type": "spawn", "processType": "node", "command": "-p", "args": ["1"]});
    let Value::Object(change) = change else { panic!("an object") };
    for (key, value) in change {
        message[key] = value;
    }
    message
}

fn spawns() -> Vec<Value> {
    let options = |options: Value| spawn(json!({"options": options}));
    vec![
        json!({"type": "spawn"}),
        json!({"type": "spawn", "processType": "node"}),
        spawn(json!({"processType": "ruby"})),
        spawn(json!({"processType": "Node"})),
        spawn(json!({"processType": "constructor"})),
        spawn(json!({"processType": null})),
        spawn(json!({"processType": 5})),
        spawn(json!({"processType": ["node"]})),
        spawn(json!({"command": 5})),
        spawn(json!({"command": {}})),
        spawn(json!({"command": null, "args": []})),
        spawn(json!({"command": "", "args": []})),
        spawn(json!({"command": "undefined", "args": []})),
        spawn(json!({"command": "a\u{0}b"})),
        spawn(json!({"command": "../outside.js", "args": []})),
        spawn(json!({"command": "/../../etc/passwd", "args": []})),
        spawn(json!({"command": "/no/such/script.js", "args": []})),
        spawn(json!({"command": "x".repeat(5000), "args": []})),
        spawn(json!({"processType": "python", "command": "/no/such/script.py", "args": []})),
        spawn(json!({"processType": "python", "command": "", "args": []})),
        spawn(json!({"processType": "workerd", "command": null, "args": []})),
        spawn(json!({"processType": "workerd", "command": "/no/such/worker.js", "args": []})),
        spawn(json!({"processType": "shell", "command": "/no/such/shell"})),
        spawn(json!({"processType": "openclaw", "command": "gateway", "args": []})),
        spawn(json!({"args": "-p 1"})),
        spawn(json!({"args": 5})),
        spawn(json!({"args": null})),
        spawn(json!({"args": {}})),
        spawn(json!({"args": [1]})),
        spawn(json!({"args": [null]})),
        spawn(json!({"args": ["1", {}]})),
        spawn(json!({"args": ["a\u{0}b"]})),
        spawn(json!({"args": ["x".repeat(200_000)]})),
        spawn(json!({"args": vec!["x".repeat(1000); 4000]})),
        spawn(json!({"options": null})),
        spawn(json!({"options": 5})),
        spawn(json!({"options": []})),
        spawn(json!({"options": "x"})),
        options(json!({"cwd": 5})),
        options(json!({"cwd": {}})),
        options(json!({"cwd": "/no/such/directory"})),
        options(json!({"cwd": "../.."})),
        options(json!({"cwd": "a\u{0}b"})),
        options(json!({"env": 5})),
        options(json!({"env": "A=B"})),
        options(json!({"env": ["A=B"]})),
        options(json!({"env": {"A=B": "c"}})),
        options(json!({"env": {"": "c"}})),
        options(json!({"env": {"A": "\u{0}"}})),
        options(json!({"env": {"A": null}})),
        options(json!({"env": {"A": {}}})),
        options(json!({"timeout": -1})),
        options(json!({"timeout": "5"})),
        options(json!({"timeout": 1.5})),
        options(json!({"pty": 5})),
        options(json!({"pty": {"cols": 0, "rows": 5}})),
        options(json!({"pty": {"cols": 80}})),
        options(json!({"stdin": "file"})),
        options(json!({"encoding": "latin1"})),
        options(json!({"isolation": "none"})),
        options(json!({"limits": {"memory": 0}})),
        options(json!({"limits": {"pids": -1}})),
        options(json!({"limits": {"cpu": "all"}})),
        options(json!({"limits": 5})),
        options(json!({"name": 5})),
        options(json!({"name": "x".repeat(1000)})),
    ]
}

/// Requests about `pid`, a program on pipes, or about none that there is.
fn others(pid: u64) -> Vec<Value> {
    let file = |files: Value| json!({"type": "fsync", "operation": "push", "files": files});
    let mut all = vec![
        json!({"type": "nonsense"}),
        json!({"type": "write", "pid": pid}),
        json!({"type": "write", "pid": pid, "data": 5}),
        json!({"type": "write", "pid": pid, "data": null}),
        json!({"type": "write", "pid": pid, "data": {}}),
        json!({"type": "write", "pid": pid, "data": ["x"]}),
        json!({"type": "write", "pid": pid, "data": "not base64!", "encoding": "base64"}),
        json!({"type": "write", "pid": pid, "data": "x", "encoding": "hex"}),
        json!({"type": "attach", "pid": pid, "after": -1}),
        json!({"type": "attach", "pid": pid, "after": "0"}),
        json!({"type": "attach", "pid": pid, "encoding": 5}),
        json!({"type": "list", "all": "yes"}),
        json!({"type": "fsync"}),
        json!({"type": "fsync", "operation": "steal"}),
        json!({"type": "fsync", "operation": 5}),
        json!({"type": "fsync", "operation": "push"}),
        file(json!({})),
        file(json!("x")),
        file(json!(null)),
        file(json!(5)),
    ];
    for signal in [
        json!("SIGNONSENSE"),
        json!("SIG"),
        json!(-1),
        json!(1000),
        json!(1.5),
        json!({}),
        json!([]),
        json!(true),
    ] {
        all.push(json!({"type": "kill", "pid": pid, "signal": signal}));
    }
    all.push(json!({"type": "kill", "pid": pid, "scope": "everything"}));
    for (cols, rows) in [
        (json!(0), json!(24)),
        (json!(-1), json!(24)),
        (json!(80), json!(0)),
        (json!(1e9), json!(24)),
        (json!(65_536), json!(24)),
        (json!(80.5), json!(24)),
        (json!("80"), json!("24")),
        (json!(null), json!(null)),
    ] {
        all.push(json!({"type": "resize", "pid": pid, "cols": cols, "rows": rows}));
    }
    all.push(json!({"type": "resize", "pid": pid}));
    for kind in ["attach", "write", "resize", "kill", "closeStdin"] {
        for wrong in [
            json!(4_000_000),
            json!(pid.to_string()),
            json!(1.5),
            json!(-1),
            json!(null),
            json!({}),
            json!(1e300),
        ] {
            all.push(json!({"type": kind, "pid": wrong, "data": "x", "cols": 80, "rows": 24}));
        }
        all.push(json!({"type": kind, "data": "x", "cols": 80, "rows": 24}));
    }
    all
}

#[tokio::test]
async fn frames_that_are_no_request_get_an_error() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let nested = format!("{{\"type\":\"ping\",\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for frame in FRAMES.iter().copied().chain([&*nested]) {
        let excerpt: String = frame.chars().take(80).collect();
        wire.send_text(frame).await;
        let answer = wire.next().await;
        assert_eq!(answer["type"], "error", "{excerpt:?}: {answer}");
        assert!(answer["error"].is_string() && answer["code"].is_string(), "{excerpt:?}: {answer}");
        assert!(answer.get("id").is_none(), "{excerpt:?}: {answer}");
        wire.send_message(Message::binary(frame.as_bytes().to_vec())).await.expect("open");
        assert_eq!(wire.next().await["type"], "error", "as a binary frame: {excerpt:?}");
    }
    wire.send_message(Message::binary(vec![0xff, 0xfe, 0, 1])).await.expect("open");
    assert_eq!(wire.next().await["type"], "error");
    assert_serves(&mut wire).await;
}

#[tokio::test]
async fn requests_with_a_wrong_value_get_an_error_with_their_id() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let reader = wire.spawn(bash("echo ready; read line; echo got $line")).await;
    wire.stdout_until(reader, "ready").await;
    for (number, mut request) in spawns().into_iter().chain(others(reader)).enumerate() {
        request["id"] = json!({"number": number});
        let mut excerpt = request.to_string();
        excerpt.truncate(200);
        let answer = wire.request(request).await;
        assert_eq!(answer["type"], "error", "{excerpt}: {answer}");
        let text = answer["error"].as_str().unwrap_or_default();
        assert!(!text.is_empty() && text.len() < 1000, "{excerpt}: {answer}");
        assert!(answer["code"].is_string(), "{excerpt}: {answer}");
        assert_ne!(answer["code"], "INTERNAL", "{excerpt}: {answer}");
    }
    assert_serves(&mut wire).await;
    // Nothing of all that was started, and nothing reached the one program that there was.
    let status = wire.request(json!({"type": "status", "id": 1})).await;
    let counts = (&status["stats"]["active"], &status["stats"]["totalSpawned"]);
    assert_eq!(counts, (&json!(1), &json!(1)), "{status}");
    wire.send(&json!({"type": "write", "pid": reader, "data": "news\n"})).await;
    assert_eq!(wire.run_to_exit(reader).await.0, "got news\n");
}

/// What looks wrong and is not: 1.0 took it, or it is said twice, or it is nobody's business.
#[tokio::test]
async fn harmless_oddities_are_taken() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    for frame in [
        " {\"type\":\"ping\"} \n",
        "{\"type\":\"spawn\",\"type\":\"ping\"}",
        "{\"type\":\"ping\",\"unknown\":{\"a\":[1e999]}}",
        "{\"\\u0074ype\":\"ping\"}",
        "{\"type\":\"ping\",\"pid\":\"x\"}",
    ] {
        wire.send_text(frame).await;
        assert_eq!(wire.next().await["type"], "pong", "{frame}");
        wire.send_message(Message::binary(frame.as_bytes().to_vec())).await.expect("open");
        assert_eq!(wire.next().await["type"], "pong", "as a binary frame: {frame}");
    }
    // Whole numbers however they are written, and null where nothing is meant.
    for message in [
        json!({"args": ["1"], "options": {"env": {"A": 5, "B": true}, "timeout": 0, "cwd": null, "pty": null}}),
        json!({"args": ["1"], "options": {"cwd": "", "unknown": 5}}),
        json!({"args": ["1"], "options": {"timeout": 1e30}}),
    ] {
        let pid = wire.spawn(spawn(message.clone())).await;
        assert_eq!(wire.run_to_exit(pid).await.0, "1\n", "{message}");
    }
    let detached = wire.request(json!({"type": "detach", "id": 1, "pid": 4_000_000})).await;
    assert_eq!(detached["type"], "detached", "{detached}");
    wire.send_text("{\"type\":\"attach\",\"id\":2,\"pid\":1e3}").await;
    let attached = wire.next_where(|message| message["id"] == 2).await;
    assert_eq!(attached["type"], "attached", "{attached}");
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
    // null is an id, an absent one is none, and numbers keep their digits.
    for (sent, expected) in [
        (r#"{"type":"ping","id":null}"#, Some("\"id\":null")),
        (r#"{"type":"ping","id":1.0}"#, Some("\"id\":1.0")),
        (
            r#"{"type":"ping","id":123456789012345678901234567890}"#,
            Some("\"id\":123456789012345678901234567890"),
        ),
        (r#"{"type":"ping"}"#, None),
    ] {
        wire.send_text(sent).await;
        let Some(Message::Text(answer)) = wire.next_frame().await else { panic!("no answer to {sent}") };
        assert_eq!(answer.contains("\"id\""), expected.is_some(), "{sent}: {answer}");
        assert!(answer.contains(expected.unwrap_or_default()), "{sent}: {answer}");
    }
    let long = "x".repeat(100_000);
    wire.send(&json!({"type": "ping", "id": long})).await;
    let answer = wire.next().await;
    assert_eq!(answer["type"], "error");
    assert!(answer.to_string().len() < 1000, "it is not sent back");
}

/// Frames by RFC 6455 that break its rules, each with the close code the rule names. The mask is zero.
#[tokio::test]
async fn broken_frames_close_their_connection_alone() {
    let server = start();
    // Where a token is asked for, and none has been shown.
    let guarded = Server::start(options().env("MHNOS_AUTH_TOKEN", "correct-horse-battery-staple"));
    let mut bystander = Wire::connect(server.address()).await;
    let too_long = [&[0x81, 0xff][..], &(1_u64 << 40).to_be_bytes(), &[0; 4]].concat();
    for (what, frame, code) in [
        ("not masked", &b"\x81\x02{}"[..], 1002),
        ("an unknown opcode", b"\x83\x80\0\0\0\0", 1002),
        ("a reserved bit", b"\xc1\x80\0\0\0\0", 1002),
        ("a continuation of nothing", b"\x80\x80\0\0\0\0", 1002),
        ("a fragmented ping", b"\x09\x80\0\0\0\0", 1002),
        ("no UTF-8", b"\x81\x82\0\0\0\0\xff\xfe", 1007),
        ("longer than allowed", &too_long, 1009),
    ] {
        for server in [&server, &guarded] {
            assert_eq!(close_code_for(server, frame), code, "{what}");
        }
        assert_serves(&mut bystander).await;
    }
}

/// The code of the close frame that this frame is answered with.
fn close_code_for(server: &Server, frame: &[u8]) -> u16 {
    let handshake = format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        server.address()
    );
    let answer = http_raw(server.address(), &[handshake.as_bytes(), frame].concat()).expect("an answer");
    // The close frame is the last thing that is sent: opcode 8, a length, the code.
    let close = answer.windows(4).rfind(|bytes| bytes[0] == 0x88).expect("a close frame");
    u16::from_be_bytes([close[2], close[3]])
}

#[tokio::test]
async fn large_messages_are_taken_up_to_the_limit() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let mut bystander = Wire::connect(server.address()).await;
    let padded = |bytes: usize| format!("{{\"type\":\"ping\",\"id\":1,\"x\":\"{}\"}}", "x".repeat(bytes));
    wire.send_text(&padded(99 << 20)).await;
    assert_serves(&mut bystander).await;
    assert_eq!(wire.next().await["type"], "pong");
    // It may be refused before it has been sent as a whole.
    let _ = wire.send_message(Message::text(padded(101 << 20))).await;
    let close = wire.closed().await;
    assert!(close.is_none_or(|close| u16::from(close.code) == 1009));
    assert_serves(&mut bystander).await;
}
