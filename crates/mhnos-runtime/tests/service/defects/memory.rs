//! Nobody's slowness costs the service memory without bound, and no program takes more than its share.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use mhnos_protocol::binary;
use mhnos_testing::{Server, Wire, WireOptions, eventually_async};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    bad_clients::{binary_web_socket, head},
    options,
    requests::{assert_serves, bash, kill, node, python, resident_kib, with_options},
    start,
};

/// More than the stall deadline and the time a slow machine takes to write the output, together.
const AWAKE: Duration = Duration::from_mins(2);
/// Much longer than free memory is kept.
const SOON: Duration = Duration::from_secs(30);
/// No end of a connection takes this long that is due after three rounds of pings.
const DROPPED: Duration = Duration::from_mins(2);

/// Defect 5: the program is held back at first, then it runs free, and the client that wakes is told what it missed.
#[tokio::test]
async fn a_stalled_client_costs_bounded_memory_and_wakes_to_a_gap() {
    const BYTES: u64 = 200_000_000;
    let server = start();
    let mut stalled = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let before = resident_kib(&server);
    stalled.spawn(bash(&format!("head -c {BYTES} /dev/zero | tr '\\0' x"))).await;
    let mut other = Wire::connect(server.address()).await;
    let ended = eventually_async(AWAKE, "the program ends although nobody reads", async || {
        let list = other.request(json!({"type": "list", "id": "list", "all": true})).await;
        let grown = resident_kib(&server).saturating_sub(before);
        assert!(grown < 32 * 1024, "grew by {grown} KiB");
        let ended = list["processes"][0]["status"] == "exited";
        ended.then(|| list["processes"][0].clone())
    })
    .await;
    assert_eq!((&ended["seq"], &ended["exit"]["code"]), (&json!(BYTES), &json!(0)), "{ended}");
    let (mut position, mut gaps) = (0, 0);
    loop {
        let message = stalled.next().await;
        match message["type"].as_str() {
            Some("stdout") => {
                position += message["data"].as_str().unwrap_or_default().len() as u64;
                assert_eq!(message["seq"], position, "every byte once, or a gap");
            }
            Some("gap") => {
                assert_eq!(message["from"], position, "{message}");
                position = message["to"].as_u64().expect("a position");
                gaps += 1;
            }
            Some("exit") => break,
            _ => panic!("{message}"),
        }
    }
    assert_eq!((position, gaps), (BYTES, 1));
}

/// Defect 5.
#[tokio::test]
async fn a_program_that_does_not_read_costs_bounded_memory() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let deaf = wire.spawn(bash("echo deaf; sleep 1000")).await;
    wire.stdout_until(deaf, "deaf").await;
    let before = resident_kib(&server);
    let big = "x".repeat(4 << 20);
    for id in 0..12 {
        wire.send(&json!({"type": "write", "id": id, "pid": deaf, "data": big})).await;
        let grown = resident_kib(&server).saturating_sub(before);
        assert!(grown < 48 * 1024, "grew by {grown} KiB");
    }
    for id in 0..12 {
        let answer = wire.next_where(|message| message["id"] == id).await;
        assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("STDIN_FULL")), "{answer}");
    }
    assert_eq!(kill(&mut wire, deaf).await["type"], "killed");
}

/// A program that takes a little now and then is waited for; what waits counts against the budget of all messages, and
/// what has waited longest is refused when others need the room.
#[tokio::test]
async fn large_writes_that_wait_for_a_program_hold_no_more_than_the_budget() {
    const CLIENTS: usize = 8;
    const BYTES: usize = 90 << 20;
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let slow = wire.spawn(bash("echo slow; while head -c 1000 >/dev/null; do sleep 0.2; done")).await;
    wire.stdout_until(slow, "slow").await;
    let piece = vec![b'x'; 1 << 20];
    let mut begin = head(0x82, (binary::HEADER_BYTES + BYTES) as u64);
    binary::encode_write(&mut begin, slow as u32, 1, &[]);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut socket = binary_web_socket(server.address());
        // One that is given up is told so below.
        let _ = socket.write_all(&begin);
        let _ = (0..BYTES / piece.len()).try_for_each(|_| socket.write_all(&piece));
        clients.push(socket);
    }
    assert_serves(&mut wire).await;
    assert_eq!(kill(&mut wire, slow).await["type"], "killed");
    let told: Vec<String> = clients.into_iter().map(told).collect();
    let count = |what: &str| told.iter().filter(|told| *told == what).count();
    let ended = count("STDIN_CLOSED") + count("PROCESS_EXITED");
    let (refused, given_up) = (count("STDIN_FULL"), count("1013"));
    assert_eq!(refused + given_up + ended, CLIENTS, "{told:?}");
    assert!(refused > 0 && ended <= 2, "more waited than there is room for: {told:?}");
}

/// A connection has room for a large message while that is there.
#[tokio::test]
async fn connections_that_have_sent_large_messages_keep_nothing_of_them() {
    const BYTES: usize = 40 << 20;
    let server = start();
    let mut clients = Vec::new();
    let before = resident_kib(&server);
    for _ in 0..8 {
        let mut wire = Wire::connect_as(server.address(), WireOptions::binary()).await;
        let mut write = Vec::new();
        binary::encode_write(&mut write, 999, 1, &vec![b'x'; BYTES]);
        wire.send_message(Message::binary(write)).await.expect("sent");
        let answer = wire.next_where(|answer| answer["id"] == 1).await;
        assert_eq!(answer["code"], "PROCESS_NOT_FOUND", "{answer}");
        assert_serves(&mut wire).await;
        clients.push(wire);
    }
    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown < 2 * (BYTES as u64 >> 10), "grew by {grown} KiB");
}

/// Files of some MiB, as arrays of numbers: what their messages took goes back to the kernel when no more come.
#[tokio::test]
async fn pushes_leave_nothing_behind_in_memory() {
    const CLIENTS: u32 = 4;
    const ROUNDS: u32 = 6;
    const BYTES: usize = 3 << 20;
    const KEPT_KIB: u64 = 12 << 10;
    let server = start();
    let before = resident_kib(&server);
    let content = vec!["251"; BYTES].join(",");
    let clients = (0..CLIENTS).map(async |client| {
        let mut wire = Wire::connect(server.address()).await;
        for round in 0..ROUNDS {
            let file = format!(r#"{{"path":"/{client}","kind":"file","content":[{content}]}}"#);
            let push = format!(r#"{{"type":"fsync","id":{round},"operation":"push","files":[{file}]}}"#);
            wire.send_message(Message::text(push)).await.expect("sent");
            let answer = wire.next_where(|answer| answer["id"] == round).await;
            assert_eq!(answer["results"]["synced"], 1, "{answer}");
        }
        wire
    });
    let _clients = futures_util::future::join_all(clients).await;
    eventually_async(SOON, "what they took is given back", async || {
        let grown = resident_kib(&server).saturating_sub(before);
        (grown < KEPT_KIB).then_some(())
    })
    .await;
}

/// The code of the error that answers request 1, or of the close frame.
fn told(mut socket: TcpStream) -> String {
    let (mut seen, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&seen);
        let answer = text.find("\"id\":1,").and_then(|at| text[at..].split_once("\"code\":\""));
        if let Some((code, _)) = answer.and_then(|(_, code)| code.split_once('"')) {
            return code.to_owned();
        }
        if text.contains("too many large messages at once") {
            return "1013".to_owned();
        }
        let count = socket.read(&mut part).expect("an answer");
        assert!(count > 0, "closed after {text}");
        seen.extend(&part[..count]);
    }
}

/// Defect 11: pings come, and a peer that does not answer them, but keeps its socket open, is dropped; one that answers
/// is not. (With the interval as it is by default: `a_client_that_answers_no_pings_is_dropped`.)
#[tokio::test]
async fn a_peer_that_answers_no_ping_is_dropped() {
    let server = Server::start(options().env("MHNOS_PING_INTERVAL", "2s"));
    let address = server.address();
    let mut answering = Wire::connect_as(address, WireOptions::modern()).await;
    let mut silent = tokio::task::spawn_blocking(move || until_dropped(address));
    // Its library answers pings while it reads.
    let frames = tokio::select! {
        frames = &mut silent => frames.expect("no panic"),
        message = answering.next_or_end() => panic!("nothing is said to it: {message:?}"),
    };
    assert_eq!(
        frames.windows(2).filter(|frame| *frame == [0x89, 0]).count(),
        2,
        "it was pinged in two rounds"
    );
    assert_serves(&mut answering).await;
    let status = answering.request(json!({"type": "status", "id": 1})).await;
    assert_eq!(status["limits"]["pingIntervalMs"], 2000, "{status}");
}

/// Opens a WebSocket and only reads; the frames that came.
fn until_dropped(address: SocketAddr) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).expect("it listens");
    socket.set_read_timeout(Some(DROPPED)).expect("a timeout");
    let handshake = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(handshake.as_bytes()).expect("sent");
    let mut received = Vec::new();
    // A reset ends it as well as an end of file; nothing for so long is an error.
    if let Err(error) = socket.read_to_end(&mut received) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "still open");
    }
    let head = received.windows(4).position(|end| end == b"\r\n\r\n").expect("a head");
    received.split_off(head + 4)
}

/// Defect 17.
#[tokio::test]
async fn memory_is_limited_for_every_type_and_capital_letters_are_sizes() {
    let server = Server::start(options().env("MHNOS_MAX_MEMORY", "256M"));
    let mut wire = Wire::connect(server.address()).await;
    let fine = wire.spawn(node("console.log('fine')")).await;
    assert_eq!(wire.run_to_exit(fine).await.0, "fine\n");
    let hungry = [
        python("b = []\nwhile True: b.append(bytearray(1 << 20))"),
        node("const b = []; for (;;) b.push(Buffer.alloc(1 << 20, 1))"),
        bash("a=x; while :; do a=$a$a; done"),
    ];
    for spawn in hungry {
        let pid = wire.spawn(spawn.clone()).await;
        let (_, stderr, exit) = wire.run_to_exit(pid).await;
        let refused = ["MemoryError", "Array buffer allocation failed", "cannot allocate"];
        let ended_for_memory = exit["reason"] == "memory" || refused.iter().any(|text| stderr.contains(text));
        assert!(ended_for_memory, "{spawn}: {exit} {stderr}");
    }
    // A tree is limited as a whole: none of these alone takes too much. The shell tells how the first one ended.
    let child = "import signal; b = bytearray(100 << 20); signal.pause()";
    let tree = bash(&format!(
        "for i in 1 2 3 4 5 6; do python3 -c '{child}' & done; wait -n; code=$?; kill $(jobs -p); exit $code"
    ));
    let pid = wire.spawn(with_options(tree, json!({"timeout": 20_000}))).await;
    let (_, stderr, exit) = wire.run_to_exit(pid).await;
    assert!(exit["reason"] == "memory" || exit["code"] == 128 + 9, "{exit} {stderr}");
    assert_serves(&mut wire).await;
}

#[tokio::test]
async fn every_usual_way_of_writing_a_size_means_the_same() {
    for (size, bytes) in [
        ("1G", 1_u64 << 30),
        ("1gb", 1 << 30),
        ("1GiB", 1 << 30),
        ("1048576k", 1 << 30),
        ("1073741824", 1 << 30),
    ] {
        let server = Server::start(options().env("MHNOS_MAX_MEMORY", size));
        let mut wire = Wire::connect(server.address()).await;
        let status = wire.request(json!({"type": "status", "id": 1})).await;
        assert_eq!(status["config"]["maxMemory"], bytes, "{size}: {status}");
    }
}
