//! The end of the service, and of clients that are gone without saying so.

use mhnos_testing::{Wire, WireOptions};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::keeper::Service;

#[tokio::test]
async fn a_drain_ends_processes_tells_clients_and_closes() {
    let mut service = Service::start_with(|config| config.kill_grace = std::time::Duration::from_millis(200));
    let mut wire = Wire::connect_as(service.address, WireOptions::modern()).await;
    let gentle = json!({"processType": "shell", "args": ["-c", "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done"], "options": {"pty": false}});
    let stubborn = json!({"processType": "shell", "args": ["-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"], "options": {"pty": false}});
    let gentle = wire.spawn(gentle).await;
    wire.stdout_until(gentle, "ready").await;
    let stubborn = wire.spawn(stubborn).await;
    wire.stdout_until(stubborn, "ready").await;
    service.drain();
    let (stdout, _, exit) = wire.run_to_exit(gentle).await;
    assert_eq!((stdout.as_str(), &exit["code"], &exit["reason"]), ("bye\n", &json!(0), &json!("shutdown")));
    let refused = wire
        .request(json!({"type": "spawn", "id": "late", "processType": "shell", "args": ["-c", "exit"], "options": {"pty": false}}))
        .await;
    assert_eq!(refused["code"], "DRAINING", "{refused}");
    let (_, _, exit) = wire.run_to_exit(stubborn).await;
    assert_eq!((&exit["signal"], &exit["reason"]), (&json!("SIGKILL"), &json!("shutdown")));
    assert_eq!(wire.closed().await.expect("a close frame").code, CloseCode::Away);
    service.ended().await.expect("a clean end");
    assert!(service.has_drained());
}

#[tokio::test]
async fn a_kill_that_waits_during_a_drain_is_still_answered() {
    let mut service = Service::start_with(|config| config.kill_grace = std::time::Duration::from_millis(200));
    let mut wire = Wire::connect_as(service.address, WireOptions::modern()).await;
    let spawn = json!({"processType": "shell", "args": ["-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"], "options": {"pty": false}});
    let pid = wire.spawn(spawn).await;
    wire.stdout_until(pid, "ready").await;
    wire.send(&json!({"type": "kill", "id": "k", "pid": pid})).await;
    wire.request(json!({"type": "ping", "id": "p"})).await;
    service.drain();
    let killed = wire.next_where(|value| value["id"] == "k").await;
    assert_eq!(killed["type"], "killed");
    assert_eq!(wire.closed().await.expect("a close frame").code, CloseCode::Away);
    service.ended().await.expect("a clean end");
}

#[tokio::test]
async fn a_client_that_closes_is_answered() {
    let service = Service::start();
    let mut wire = Wire::connect_as(service.address, WireOptions::modern()).await;
    let close = tokio_tungstenite::tungstenite::Message::Close(None);
    wire.send_message(close).await.expect("sent");
    assert!(wire.closed().await.is_none(), "the echo of an empty close frame is empty");
    let mut other = Wire::connect(service.address).await;
    assert_eq!(other.request(json!({"type": "ping", "id": 1})).await["type"], "pong");
}

#[tokio::test]
async fn a_client_that_answers_no_pings_is_dropped() {
    // Nothing is looked for in an empty PATH. A clock that is paused jumps to the next timer whenever nothing is to be done,
    // and while a program is being asked for its version that is the next question's, not the ping's.
    let service = Service::start_with(|config| config.path = String::new());
    let mut socket = tokio::net::TcpStream::connect(service.address).await.expect("connect");
    let handshake = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // The pings begin between this and the answer.
    let began = tokio::time::Instant::now();
    socket.write_all(handshake.as_bytes()).await.expect("sent");
    let mut first = [0; 12];
    socket.read_exact(&mut first).await.expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 101");
    tokio::time::pause();
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).await.expect("the end");
    assert_eq!(began.elapsed().as_secs() / 30, 3, "{:?}", began.elapsed());
    let ping = [0x89, 0];
    assert!(rest.ends_with(&[ping, ping].concat()), "two pings, then the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_never_closes_before_the_exits_are_told() {
    for _ in 0..20 {
        let mut service = Service::start();
        let mut wire = Wire::connect_as(service.address, WireOptions::modern()).await;
        let sleeper =
            json!({"processType": "shell", "args": ["-c", "exec sleep 60"], "options": {"pty": false}});
        let pid = wire.spawn(sleeper).await;
        service.drain();
        let exit = wire.next_where(|value| value["type"] == "exit").await;
        assert_eq!((&exit["pid"], &exit["reason"]), (&json!(pid), &json!("shutdown")));
        drop(wire);
        service.ended().await.expect("a clean end");
    }
}
