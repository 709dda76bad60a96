//! Viewers as they should not be: crawling, of a hundred speeds, coming and going without end, resuming where nothing is.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use mhnos_testing::{Server, Wire, WireOptions};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::{options, requests::bash, start};

/// What the programs write, again and again.
const LINE: &str = "0123456789 and so on\n";

fn lines(bytes: u64) -> String {
    format!("yes '{}' | head -c {bytes}", LINE.trim_end())
}

/// A viewer that takes binary frames and checks them. Returns at the exit: where it got to, and how much it was told is missing.
async fn follow(wire: &mut Wire, mut position: u64, pause: usize) -> (u64, u64) {
    let mut missed = 0;
    loop {
        match wire.next_frame().await.expect("the connection stays") {
            Message::Binary(frame) => {
                let seq = u64::from_le_bytes(frame[8..16].try_into().expect("eight bytes"));
                let data = &frame[16..];
                let begin = position as usize % LINE.len();
                assert!(
                    data.iter().zip(LINE.bytes().cycle().skip(begin)).all(|(a, b)| *a == b),
                    "{position}"
                );
                position += data.len() as u64;
                assert_eq!(seq, position, "every byte once, or a gap");
            }
            Message::Text(text) => {
                let message: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                match message["type"].as_str() {
                    Some("gap") => {
                        assert_eq!(message["from"], position, "{message}");
                        let to = message["to"].as_u64().expect("a position");
                        missed += to - position;
                        position = to;
                    }
                    Some("exit") => return (position, missed),
                    _ => {}
                }
            }
            _ => {}
        }
        for _ in 0..pause {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_hundred_viewers_of_different_speed_get_the_same_bytes() {
    // Several times what a viewer may be behind.
    const BYTES: u64 = 1_000_000;
    let server = start();
    let mut spawner = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let pid = spawner.spawn(bash(&format!("read go; {}", lines(BYTES)))).await;
    let mut viewers = Vec::new();
    for _ in 0..100 {
        let mut wire = Wire::connect_as(server.address(), WireOptions::binary()).await;
        wire.request(json!({"type": "attach", "id": 1, "pid": pid})).await;
        viewers.push(wire);
    }
    spawner.request(json!({"type": "detach", "id": 2, "pid": pid})).await;
    spawner.send(&json!({"type": "write", "pid": pid, "data": "go\n"})).await;
    let following = viewers.iter_mut().enumerate().map(|(number, wire)| follow(wire, 0, number % 50));
    for (position, missed) in join_all(following).await {
        assert_eq!((position, missed), (BYTES, 0));
    }
}

/// It holds the program back no longer than the stall deadline, and nobody else at all.
#[tokio::test]
async fn a_viewer_that_takes_a_byte_a_second_keeps_nobody_for_long() {
    const BYTES: u64 = 40_000_000;
    /// The stall deadline, and what a busy machine takes. At a byte a second it would be a year.
    const NOT_LONG: Duration = Duration::from_mins(1);
    let server = start();
    let mut wire = Wire::connect_as(server.address(), WireOptions::binary()).await;
    let pid = wire.spawn(bash(&format!("read go; {}", lines(BYTES)))).await;
    let mut crawler = crawler(&server, pid);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = std::sync::Arc::clone(&stop);
    let crawling = std::thread::spawn(move || {
        let mut byte = [0];
        while !stopped.load(std::sync::atomic::Ordering::Acquire) && crawler.read(&mut byte).is_ok() {
            // Slowness is what this is about.
            std::thread::park_timeout(Duration::from_secs(1));
        }
    });
    let begun = Instant::now();
    wire.send(&json!({"type": "write", "pid": pid, "data": "go\n"})).await;
    let mut other = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let pings = async {
        for id in 0..200 {
            assert_eq!(other.request(json!({"type": "ping", "id": id})).await["type"], "pong");
        }
    };
    let ((position, missed), ()) = tokio::join!(follow(&mut wire, 0, 0), pings);
    assert_eq!((position, missed), (BYTES, 0));
    assert!(begun.elapsed() < NOT_LONG, "{:?}", begun.elapsed());
    stop.store(true, std::sync::atomic::Ordering::Release);
    crawling.thread().unpark();
    crawling.join().expect("it ends");
}

/// Its pings wait behind what it is reading: that it reads is sign enough that it lives.
#[tokio::test]
async fn a_slow_download_is_not_cut_by_the_heartbeat() {
    const FILE: usize = 32 << 20;
    /// Several rounds of pings.
    const TAKES: Duration = Duration::from_secs(8);
    const PIECE: usize = 64 << 10;
    let server = Server::start(options().env("MHNOS_PING_INTERVAL", "1s"));
    server.write("large", vec![b'x'; FILE]);
    let mut socket = asking(&server, &json!({"type": "fsync", "id": 1, "operation": "pull"}));
    let (mut length, mut piece) = (0, vec![0; PIECE]);
    let begun = Instant::now();
    while length < FILE {
        let read = socket.read(&mut piece).expect("it is being sent");
        assert!(read > 0, "cut after {length} bytes and {:?}", begun.elapsed());
        length += read;
        // Slowness is what this is about.
        while begun.elapsed() < TAKES.mul_f64(length as f64 / FILE as f64) {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

/// A client that attached and has read nothing since the handshake.
fn crawler(server: &Server, pid: u64) -> TcpStream {
    let mut socket = asking(server, &json!({"type": "attach", "id": 1, "pid": pid}));
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !seen.ends_with(b"\"attached\"") {
        socket.read_exact(&mut byte).expect("it is attached");
        seen.push(byte[0]);
    }
    socket
}

/// A client that has asked for this and has read nothing since the handshake.
fn asking(server: &Server, request: &Value) -> TcpStream {
    let mut socket = TcpStream::connect(server.address()).expect("it listens");
    let handshake = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Protocol: mhnos.v1.binary\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.write_all(handshake.as_bytes()).expect("it reads");
    let request = request.to_string();
    // Masked with zeros, which leave it as it is.
    let mut frame = vec![0x81, 0x80 | request.len() as u8, 0, 0, 0, 0];
    assert!(request.len() < 126);
    frame.extend(request.bytes());
    socket.write_all(&frame).expect("it reads");
    socket
}

#[tokio::test]
async fn storms_of_attaches_and_detaches_disturb_no_other_viewer() {
    const BYTES: u64 = 20_000_000;
    let server = start();
    let mut wire = Wire::connect_as(server.address(), WireOptions::binary()).await;
    let pid = wire.spawn(bash(&format!("read go; {}", lines(BYTES)))).await;
    let mut storm = Wire::connect_as(server.address(), WireOptions::binary()).await;
    wire.send(&json!({"type": "write", "pid": pid, "data": "go\n"})).await;
    let storming = async {
        for round in 0..300_u64 {
            let after = round * 7_919 % 100_000;
            storm.send(&json!({"type": "attach", "id": round, "pid": pid, "after": after})).await;
            storm.send(&json!({"type": "detach", "id": round + 1000, "pid": pid})).await;
            let mut answers = 0;
            while answers < 2 {
                if let Message::Text(text) = storm.next_frame().await.expect("the connection stays") {
                    answers += usize::from(text.contains("\"attached\"") || text.contains("\"detached\""));
                }
            }
        }
    };
    let ((position, missed), ()) = tokio::join!(follow(&mut wire, 0, 0), storming);
    assert_eq!((position, missed), (BYTES, 0));
}

#[tokio::test]
async fn who_resumes_where_nothing_is_any_more_is_told_what_is_missing() {
    const BYTES: u64 = 9_000_000;
    let server = start();
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let pid = wire.spawn(bash(&lines(BYTES))).await;
    assert_eq!(wire.run_to_exit(pid).await.0.len() as u64, BYTES);
    let oldest = BYTES - (4 << 20);
    for (after, missed) in [(json!(0), oldest), (json!(5), oldest - 5), (json!(oldest), 0), (json!(BYTES), 0)]
    {
        let mut late = Wire::connect_as(server.address(), WireOptions::binary()).await;
        late.send(&json!({"type": "attach", "id": 1, "pid": pid, "after": after})).await;
        let seen = follow(&mut late, after.as_u64().expect("a position"), 0).await;
        assert_eq!(seen, (BYTES, missed), "after {after}");
    }
    // Beyond the end is at the end; what is no position is refused, and the connection goes on.
    for after in [json!(BYTES + 1), json!(9_007_199_254_740_991_u64)] {
        let attached = wire.request(json!({"type": "attach", "id": 2, "pid": pid, "after": after})).await;
        assert_eq!((&attached["type"], &attached["seq"]), (&json!("attached"), &json!(BYTES)), "{after}");
    }
    for after in [json!(-1), json!(0.5), json!("5"), json!([]), json!(1e300)] {
        let refused = wire.request(json!({"type": "attach", "id": 3, "pid": pid, "after": after})).await;
        assert_eq!(refused["code"], "INVALID_VALUE", "{after}: {refused}");
    }
}

#[tokio::test]
async fn a_write_that_does_not_fit_says_how_much_was_taken() {
    let server = start();
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let pid = wire.spawn(bash("echo deaf; read go; exec wc -c")).await;
    wire.stdout_until(pid, "deaf").await;
    let data = "x".repeat(3 << 20);
    let full = wire.request(json!({"type": "write", "id": 1, "pid": pid, "data": format!("\n{data}")})).await;
    // The shell has taken the line; what follows is for `wc`, which does read.
    assert_eq!(full["type"], "written", "{full}");
    wire.send(&json!({"type": "closeStdin", "pid": pid})).await;
    assert_eq!(wire.run_to_exit(pid).await.0.trim(), data.len().to_string());
    let pid = wire.spawn(bash("echo deaf; sleep 1000")).await;
    wire.stdout_until(pid, "deaf").await;
    let full = wire.request(json!({"type": "write", "id": 2, "pid": pid, "data": data})).await;
    assert_eq!(full["code"], "STDIN_FULL", "{full}");
    let taken = full["taken"].as_u64().expect("a number") as usize;
    assert!(taken >= 1 << 20 && taken < data.len(), "{full}");
    assert!(full["error"].as_str().expect("text").contains(&taken.to_string()), "{full}");
}

/// Whatever the paste is made of, and in whatever way its parts are sent.
#[tokio::test]
async fn a_paste_that_did_not_fit_goes_on_from_what_was_taken() {
    let server = start();
    for encoding in ["base64", "binary"] {
        let mut wire = Wire::connect_as(server.address(), WireOptions::binary()).await;
        let script = format!("until [ -e {encoding} ]; do sleep 0.01; done; exec cat");
        let pid = wire.spawn(bash(&script)).await;
        let paste: String = (0..400_000).map(|number| format!("{number} é€😀\n")).collect();
        // It reads nothing, so that this cannot all be taken.
        let full = wire.request(json!({"type": "write", "id": 1, "pid": pid, "data": paste})).await;
        assert_eq!((&full["code"], &full["pid"]), (&json!("STDIN_FULL"), &json!(pid)), "{full}");
        let taken = full["taken"].as_u64().expect("a number") as usize;
        assert!(taken >= 1 << 20 && taken < paste.len(), "{full}");
        server.write(encoding, "");
        let mut seen = Vec::new();
        let rest = &paste.as_bytes()[taken..];
        if encoding == "base64" {
            let data = base64(rest);
            wire.send(&json!({"type": "write", "id": 2, "pid": pid, "data": data, "encoding": encoding}))
                .await;
        } else {
            let mut frame = vec![1, 0, 0, 0];
            frame.extend((pid as u32).to_le_bytes());
            frame.extend(2_u64.to_le_bytes());
            frame.extend(rest);
            wire.send_message(Message::binary(frame)).await.expect("sent");
        }
        wire.send(&json!({"type": "closeStdin", "id": 3, "pid": pid})).await;
        let (mut written, mut exited) = (false, false);
        while !(written && exited) {
            match wire.next_frame().await.expect("the connection stays") {
                Message::Binary(frame) if frame[1] == 1 => seen.extend_from_slice(&frame[16..]),
                Message::Text(text) => {
                    let message: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                    assert_ne!(message["type"], "error", "{message}");
                    written |= message["type"] == "written";
                    exited |= message["type"] == "exit";
                }
                _ => {}
            }
        }
        assert!(seen == paste.as_bytes(), "{encoding}: {} of {} bytes", seen.len(), paste.len());
    }
}

/// RFC 4648, section 4.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let word =
            (0..3).fold(0_u32, |word, at| word << 8 | three.get(at).map_or(0, |byte| u32::from(*byte)));
        for at in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= three.len() { char::from(letter) } else { '=' });
        }
    }
    text
}
