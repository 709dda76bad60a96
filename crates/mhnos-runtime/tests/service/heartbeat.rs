//! Who is heard: clients that are slow, or kept waiting, are not taken for dead.

use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

use mhnos_testing::{Server, Wire};
use serde_json::json;

use crate::{
    bad_clients::{head, web_socket},
    options,
    requests::bash,
};

/// Several rounds of pings.
const TAKES: Duration = Duration::from_secs(6);

fn start() -> Server {
    Server::start(options().env("MHNOS_PING_INTERVAL", "1s"))
}

/// No pong can come amid a frame.
#[tokio::test]
async fn a_slow_upload_is_not_cut_by_the_heartbeat() {
    const MESSAGE: usize = 4 << 20;
    const PIECE: usize = 16 << 10;
    let server = start();
    let mut socket = web_socket(server.address());
    let mut message = br#"{"type":"ping","id":1}"#.to_vec();
    message.resize(MESSAGE, b' ');
    socket.write_all(&head(0x81, MESSAGE as u64)).expect("it reads");
    let begun = Instant::now();
    for (index, piece) in message.chunks(PIECE).enumerate() {
        let sent = socket.write_all(piece);
        assert!(sent.is_ok(), "cut after {} bytes and {:?}", index * PIECE, begun.elapsed());
        // Slowness is what this is about.
        while begun.elapsed() < TAKES.mul_f64((index * PIECE) as f64 / MESSAGE as f64) {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
    let mut answers = Vec::new();
    while !answers.windows(6).any(|part| part == b"\"pong\"") {
        let mut piece = [0; 1024];
        let read = socket.read(&mut piece).expect("an answer");
        assert!(read > 0, "cut: {}", String::from_utf8_lossy(&answers));
        answers.extend_from_slice(&piece[..read]);
    }
}

/// What waits for a program that takes it slowly holds up what comes behind it, pongs included.
#[tokio::test]
async fn a_client_that_is_not_read_is_not_cut_by_the_heartbeat() {
    const WRITE: usize = 5 << 20;
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let script = format!("for i in {{1..60}}; do head -c {}; sleep 0.1; done | wc -c", WRITE.div_ceil(60));
    let pid = wire.spawn(bash(&script)).await;
    let written =
        wire.request(json!({"type": "write", "id": 1, "pid": pid, "data": "x".repeat(WRITE)})).await;
    assert_eq!(written["type"], "written", "{written}");
    assert_eq!(wire.request(json!({"type": "ping", "id": 2})).await["type"], "pong");
}
