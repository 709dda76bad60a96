//! Output: positions, replays, gaps, encodings, many viewers.

use mhnos_testing::{Wire, WireOptions};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::{keeper::Service, lines, no_time_passes};

fn shell(script: &str) -> Value {
    json!({"processType": "shell", "args": ["-c", script], "options": {"pty": false}})
}

async fn modern(service: &Service) -> Wire {
    Wire::connect_as(service.address, WireOptions::modern()).await
}

/// All `data` of stdout up to `attached`, and the messages of other types.
async fn replay(wire: &mut Wire, attach: Value) -> (String, Vec<Value>) {
    wire.send(&attach).await;
    let (mut data, mut others) = (String::new(), Vec::new());
    loop {
        let value = wire.next().await;
        match value["type"].as_str() {
            Some("stdout") => data += value["data"].as_str().expect("text"),
            Some("attached") => {
                others.push(value);
                return (data, others);
            }
            _ => others.push(value),
        }
    }
}

#[tokio::test]
async fn an_attach_after_a_position_repeats_nothing_and_misses_nothing() {
    let service = Service::start();
    let mut wire = modern(&service).await;
    let pid = wire.spawn(shell("printf 'a€b'; read line; printf 'c😀d'; read line")).await;
    let first = wire.next_where(|value| value["type"] == "stdout").await;
    assert_eq!((&first["data"], &first["seq"]), (&json!("a€b"), &json!(5)));
    wire.send(&json!({"type": "write", "pid": pid, "data": "\n"})).await;
    let second = wire.next_where(|value| value["type"] == "stdout").await;
    assert_eq!((&second["data"], &second["seq"]), (&json!("c😀d"), &json!(11)));

    let mut other = modern(&service).await;
    let attach = |after: u64| json!({"type": "attach", "id": after, "pid": pid, "after": after});
    for (after, expected) in [(0, "a€bc😀d"), (1, "€bc😀d"), (2, "€bc😀d"), (5, "c😀d"), (11, ""), (99, "")]
    {
        // In the middle of a character: what was held back then is given now.
        let (data, others) = replay(&mut other, attach(after)).await;
        assert_eq!((data.as_str(), &others[0]["seq"]), (expected, &json!(11)), "{after}");
    }
    // Every attach replays, also on the connection that views it already.
    let (data, _) = replay(&mut other, json!({"type": "attach", "id": "again", "pid": pid})).await;
    assert_eq!(data, "a€bc😀d");
}

#[tokio::test]
async fn what_the_log_no_longer_holds_is_announced_as_a_gap() {
    let service = Service::start_with(|config| config.output_log = 64 << 10);
    let mut wire = modern(&service).await;
    let pid = wire.spawn(shell("head -c 1000000 /dev/zero | tr '\\0' x; read line")).await;
    wire.request(json!({"type": "detach", "id": "d", "pid": pid})).await;
    // The process waits for input only when all its output has been read.
    wire.request(json!({"type": "write", "id": "w", "pid": pid, "data": "\n"})).await;
    loop {
        let list = wire.request(json!({"type": "list", "id": "l"})).await;
        if list["processes"] == json!([]) {
            break;
        }
    }
    // Another client: this one may have seen the beginning before it was detached.
    let mut other = modern(&service).await;
    let (data, others) = replay(&mut other, json!({"type": "attach", "id": "a", "pid": pid})).await;
    let gap = others.iter().find(|value| value["type"] == "gap").expect("a gap");
    assert_eq!(gap["from"], 0);
    let to = gap["to"].as_u64().expect("a position");
    assert!(data.len() <= 64 << 10 && to + data.len() as u64 == 1_000_000, "{to} {}", data.len());
}

#[tokio::test]
async fn bytes_survive_in_base64_and_in_binary_frames() {
    let service = Service::start();
    let mut wire = modern(&service).await;
    let script = "i=0; while [ $i -lt 256 ]; do printf \"\\\\$(printf %03o $i)\"; i=$((i+1)); done";
    let mut request = shell(script);
    request["options"]["encoding"] = "base64".into();
    let pid = wire.spawn(request).await;
    let mut encoded = Vec::new();
    loop {
        let value = wire.next().await;
        match value["type"].as_str() {
            Some("stdout") => {
                assert_eq!(value["encoding"], "base64");
                encoded.extend(decode(value["data"].as_str().expect("text")));
            }
            _ => break,
        }
    }
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(encoded, all);

    let mut binary = Wire::connect_as(service.address, WireOptions::binary()).await;
    binary.send(&json!({"type": "attach", "id": "a", "pid": pid})).await;
    let mut bytes = Vec::new();
    while let Some(Message::Binary(frame)) = binary.next_frame().await {
        assert_eq!((frame[0], frame[1]), (1, 1), "version 1, stdout");
        assert_eq!(frame[4..8], (pid as u32).to_le_bytes());
        bytes.extend_from_slice(&frame[16..]);
        assert_eq!(frame[8..16], (bytes.len() as u64).to_le_bytes());
    }
    assert_eq!(bytes, all);
}

/// Standard base64, as a test of ours should not believe our own.
fn decode(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0u32, 0);
    for digit in text.bytes().filter(|digit| *digit != b'=') {
        let value = DIGITS.iter().position(|known| *known == digit).expect("a digit") as u32;
        (bits, count) = (bits << 6 | value, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    bytes
}

#[tokio::test]
async fn input_may_come_in_binary_frames() {
    let service = Service::start();
    let mut wire = Wire::connect_as(service.address, WireOptions::binary()).await;
    let pid = wire.spawn(shell("cat")).await;
    let frame = |id: u64, data: &[u8]| {
        let mut frame = vec![1, 0, 0, 0];
        frame.extend((pid as u32).to_le_bytes());
        frame.extend(id.to_le_bytes());
        frame.extend(data);
        Message::binary(frame)
    };
    wire.send_message(frame(0, &[0, 255])).await.expect("sent");
    wire.send_message(frame(5, b"\n")).await.expect("sent");
    let mut echoed = Vec::new();
    let mut written = None;
    while echoed.len() < 3 || written.is_none() {
        match wire.next_frame().await.expect("open") {
            Message::Binary(frame) => echoed.extend_from_slice(&frame[16..]),
            Message::Text(text) => written = Some(serde_json::from_str::<Value>(&text).expect("JSON")),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(echoed, [0, 255, b'\n']);
    assert_eq!(written.expect("answered"), json!({"type": "written", "id": 5, "pid": pid}));
}

#[tokio::test]
async fn every_viewer_gets_every_byte() {
    let service = Service::start();
    let mut spawner = modern(&service).await;
    let pid = spawner.spawn(shell("read line; seq 1 50000")).await;
    let mut viewers = Vec::new();
    for n in 0..10 {
        let options = if n % 2 == 0 { WireOptions::modern() } else { WireOptions::default() };
        let mut wire = Wire::connect_as(service.address, options).await;
        wire.request(json!({"type": "attach", "id": "a", "pid": pid})).await;
        viewers.push(wire);
    }
    spawner.send(&json!({"type": "write", "pid": pid, "data": "\n"})).await;
    let expected = lines(1..=50000);
    viewers.push(spawner);
    for mut viewer in viewers {
        let (stdout, _, exit) = viewer.run_to_exit(pid).await;
        assert!(stdout == expected, "{} of {} bytes", stdout.len(), expected.len());
        assert_eq!(exit["seq"], expected.len());
    }
}

#[tokio::test]
async fn a_terminals_flood_is_joined() {
    const ALL: usize = 1 << 20;
    const JOINED: usize = 32 * 1024;
    let service = Service::start();
    let mut wire = modern(&service).await;
    let script = format!(
        "import os, tty\ntty.setraw(1)\nprint('ready', end='', flush=True)\nos.read(0, 1)\nleft = {ALL}\nwhile left: left -= os.write(1, b'x' * left)\nos.read(0, 1)"
    );
    let spawn = json!({"processType": "python", "command": "-c", "args": [script], "options": {"pty": true, "cwd": "/"}});
    let pid = wire.spawn(spawn).await;
    wire.stdout_until(pid, "ready").await;
    let still = no_time_passes();
    wire.send(&json!({"type": "write", "pid": pid, "data": "x"})).await;
    let mut received = 0;
    let mut frames = 0;
    while received <= ALL - JOINED {
        received += piece(&mut wire).await;
        frames += 1;
    }
    // A terminal hands over 4 KiB at a time; frames end where others' end, too.
    assert!(frames <= 2 * ALL / JOINED, "{frames} frames");
    // The rest waits for a millisecond to pass.
    drop(still);
    tokio::time::resume();
    while received < ALL {
        received += piece(&mut wire).await;
    }
}

/// The bytes of the next output.
async fn piece(wire: &mut Wire) -> usize {
    wire.next_where(|value| value["type"] == "stdout").await["data"].as_str().expect("text").len()
}

#[tokio::test]
async fn a_detached_viewer_gets_nothing_more() {
    let service = Service::start();
    let mut wire = modern(&service).await;
    let pid = wire.spawn(shell("echo one; read line; echo two")).await;
    wire.stdout_until(pid, "one").await;
    let detached = wire.request(json!({"type": "detach", "id": "d", "pid": pid})).await;
    assert_eq!(detached, json!({"type": "detached", "id": "d", "pid": pid}));
    wire.request(json!({"type": "write", "id": "w", "pid": pid, "data": "\n"})).await;
    let mut other = modern(&service).await;
    other.request(json!({"type": "attach", "id": "a", "pid": pid})).await;
    other.run_to_exit(pid).await;
    wire.send(&json!({"type": "ping", "id": "p"})).await;
    assert_eq!(wire.next().await["type"], "pong");
}

#[tokio::test]
async fn a_client_that_does_not_read_costs_nobody_else_anything() {
    let service = Service::start();
    let mut stalled = modern(&service).await;
    let flood = stalled.spawn(shell("exec yes")).await;
    let mut wire = modern(&service).await;
    let pid = wire.spawn(shell("cat")).await;
    for n in 0..50 {
        let line = format!("{n}\n");
        wire.send(&json!({"type": "write", "pid": pid, "data": line})).await;
        wire.stdout_until(pid, &line).await;
    }
    let killed = wire.request(json!({"type": "kill", "id": "k", "pid": flood, "signal": "SIGKILL"})).await;
    assert_eq!(killed["type"], "killed");
}
