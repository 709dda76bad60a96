//! Clients that are up to no good: they are told so or cut, others are served meanwhile, and nothing is left of them.
//!
//! `make bad-clients` runs the same at full size with the release build and prints what was measured; here the sizes are
//! what a loaded machine does in seconds, and bounds of time are not asserted.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use mhnos_keeper::limits::SPARE_SUPERVISORS;
use mhnos_testing::{Server, Wire, WireOptions, eventually_async};
use serde_json::json;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::{
    bystander::Bystander,
    options,
    requests::{assert_serves, bash, bridge, resident_kib},
    start,
};

/// No answer takes this long.
const PATIENCE: Duration = Duration::from_mins(1);

/// At full size, for figures.
pub(crate) fn full() -> bool {
    std::env::var_os("MHNOS_BAD_CLIENTS").is_some()
}

pub(crate) fn sized(small: usize, large: usize) -> usize {
    if full() { large } else { small }
}

/// For tests that hold thousands of connections.
pub(crate) fn allow_many_files() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let whole = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, whole).expect("raised");
}

/// A connection, with what was sent on it.
fn connect(address: SocketAddr, first: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(first).expect("sent");
    stream
}

fn handshake(address: SocketAddr, header: &str) -> Vec<u8> {
    format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{header}\r\n"
    )
    .into_bytes()
}

/// An open WebSocket of which the test writes every byte.
pub(crate) fn web_socket(address: SocketAddr) -> TcpStream {
    web_socket_with(address, "")
}

/// The same for one that speaks in binary frames.
pub(crate) fn binary_web_socket(address: SocketAddr) -> TcpStream {
    web_socket_with(address, "Sec-WebSocket-Protocol: mhnos.v1.binary\r\n")
}

fn web_socket_with(address: SocketAddr, header: &str) -> TcpStream {
    let mut stream = connect(address, &handshake(address, header));
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream
}

/// The head of a masked frame (the mask is zero).
pub(crate) fn head(first: u8, length: u64) -> Vec<u8> {
    [&[first, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat()
}

/// The code of the close frame at the end of what comes, if there is one.
pub(crate) fn close_code(mut stream: TcpStream) -> Option<u16> {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    let at = rest.windows(2).rposition(|frame| frame[0] == 0x88 && (2..126).contains(&frame[1]))?;
    Some(u16::from_be_bytes([*rest.get(at + 2)?, *rest.get(at + 3)?]))
}

pub(crate) fn open_files(server: &Server) -> usize {
    let the_bridge = bridge(server).expect("a bridge").as_raw_nonzero().get();
    let count = |pid: i32| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    count(the_bridge) + count(server.os_pid())
}

/// How many files are open once nothing comes and goes any more, and all processes that wait for their programs are there.
async fn open_files_at_rest(server: &Server) -> usize {
    let (mut last, mut same) = (0, 0);
    eventually_async(PATIENCE, "the service is at rest", async || {
        let now = open_files(server);
        // Bridge and init; supervisors, each with the process that waits.
        let complete = server.descendants().len() == 2 + 2 * SPARE_SUPERVISORS;
        same = if complete && now == last { same + 1 } else { 0 };
        last = now;
        (same >= 100).then_some(now)
    })
    .await
}

/// An attack from elsewhere takes no processors of this machine: what its threads here take comes after everybody else.
pub(crate) fn as_if_from_elsewhere() {
    rustix::process::setpriority_process(None, 19).expect("anybody may be nicer");
}

/// The connections of so many who have all sent something at once.
pub(crate) fn senders(
    address: SocketAddr,
    count: usize,
    send: impl Fn(&mut TcpStream) + Send + Sync + 'static,
) -> Vec<TcpStream> {
    let send = Arc::new(send);
    let senders: Vec<_> = (0..count)
        .map(|_| {
            let send = Arc::clone(&send);
            std::thread::spawn(move || {
                as_if_from_elsewhere();
                let mut stream = web_socket(address);
                send(&mut stream);
                stream
            })
        })
        .collect();
    senders.into_iter().map(|sender| sender.join().expect("no panic")).collect()
}

/// Waits until as many files are open as before, give or take what comes and goes by itself.
async fn settles(server: &Server, before: usize) {
    let mut last = 0;
    eventually_async(PATIENCE, "nothing stays open", async || {
        let now = open_files(server);
        if std::mem::replace(&mut last, now) != now {
            println!("{now} open, {before} before: {:?}", kinds_of_files(server));
        }
        (now <= before + 2).then_some(())
    })
    .await;
}

/// How many there are of each kind, as their links begin: `socket`, `/memfd`, `pipe`.
fn kinds_of_files(server: &Server) -> BTreeMap<String, usize> {
    let the_bridge = bridge(server).expect("a bridge").as_raw_nonzero().get();
    let mut kinds = BTreeMap::new();
    for (whose, pid) in [("bridge", the_bridge), ("keeper", server.os_pid())] {
        for file in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let link = std::fs::read_link(file.path()).unwrap_or_default();
            let kind = link.to_string_lossy().split([':', '(', '[']).next().unwrap_or_default().to_owned();
            *kinds.entry(format!("{whose} {kind}")).or_default() += 1;
        }
    }
    kinds
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_handshakes_are_in_nobodys_way() {
    let server = start();
    allow_many_files();
    let (before, memory) = (open_files_at_rest(&server).await, resident_kib(&server));
    let bystander = Bystander::of(&server).await;
    let address = server.address();
    let mut first = connect(address, b"GET / HTTP/1.1\r\nHost: localh");
    let crowd: Vec<TcpStream> =
        (0..sized(2000, 10_000)).map(|_| connect(address, b"GET / HTTP/1.1\r\n")).collect();
    // Whoever came first has been cut by now, and told.
    let mut answer = String::new();
    first.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
    assert_serves(&mut Wire::connect(address).await).await;
    let grown = resident_kib(&server).saturating_sub(memory);
    assert!(grown < 64 * 1024, "grew by {grown} KiB");
    bystander.report(&format!("{} half-open handshakes", crowd.len()), &server, grown);
    drop(crowd);
    settles(&server, before).await;
}

#[test]
fn a_slow_first_request_is_cut_and_told() {
    let server = start();
    let mut slow = connect(server.address(), b"GET /health HTTP/1.1\r\nHost: localh");
    let begun = Instant::now();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("in time"), "{answer:?}");
    assert!(begun.elapsed() >= Duration::from_secs(9), "not before its time: {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_of_many_are_bounded_all_together() {
    const EACH: usize = 16 << 20;
    let server = start();
    let memory = resident_kib(&server);
    let bystander = Bystander::of(&server).await;
    let address = server.address();
    let part = vec![b' '; EACH];
    let senders = senders(address, sized(32, 200), move |stream| {
        // It says 99 MiB and stops after 16. Whoever is given up may be gone before it has said that much.
        let _ = stream.write_all(&head(0x81, 99 << 20)).and_then(|()| stream.write_all(&part));
    });
    let grown = resident_kib(&server).saturating_sub(memory);
    assert!(grown < 512 * 1024, "grew by {grown} KiB");
    // One that is not slow gets through: the others are the slower the longer they say nothing, and a client that is told to send
    // it again later does.
    let content = "x".repeat(20 << 20);
    let push = json!({"type": "fsync", "id": 1, "operation": "push", "files": [{"path": "a", "kind": "file", "content": content}]});
    let push = Message::text(push.to_string());
    eventually_async(PATIENCE, "it gets through", async || {
        let mut pusher = Wire::connect(address).await;
        pusher.send_message(push.clone()).await.ok()?;
        loop {
            let message = pusher.next_or_end().await?;
            if message["id"] == 1 {
                assert_eq!(message["results"]["synced"], 1, "{message}");
                return Some(());
            }
        }
    })
    .await;
    bystander.report(&format!("{} large messages at once", senders.len()), &server, grown);
    // The rest are still being waited for; those that were given up have been told.
    let mut told = 0;
    for stream in senders {
        stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        told += usize::from(close_code(stream) == Some(1013));
    }
    assert!(told >= sized(32, 200) - 17, "{told} were told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_endless_fragments_is_refused() {
    let server = start();
    let memory = resident_kib(&server);
    let bystander = Bystander::of(&server).await;
    let mut stream = web_socket(server.address());
    let mut fragments = b"\x01\x81\0\0\0\0 ".to_vec();
    for _ in 0..40_000 {
        fragments.extend(b"\0\x81\0\0\0\0 ");
    }
    let _ = stream.write_all(&fragments);
    assert_eq!(close_code(stream), Some(1008));
    let grown = resident_kib(&server).saturating_sub(memory);
    assert!(grown < 32 * 1024, "grew by {grown} KiB");
    bystander.report("fragments of one byte", &server, grown);
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_pings_and_requests_are_paced() {
    let server = start();
    let memory = resident_kib(&server);
    let bystander = Bystander::of(&server).await;
    let address = server.address();
    let over = Arc::new(AtomicBool::new(false));
    let flood = |frame: &'static [u8]| {
        let over = Arc::clone(&over);
        std::thread::spawn(move || {
            as_if_from_elsewhere();
            let mut stream = web_socket(address);
            let mut reader = stream.try_clone().expect("a second handle");
            let drain = std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
            let many = frame.repeat(1000);
            let mut sent = 0_usize;
            while !over.load(Ordering::Relaxed) && stream.write_all(&many).is_ok() {
                sent += 1000;
            }
            stream.shutdown(std::net::Shutdown::Both).expect("open");
            let _ = drain.join().expect("no panic");
            sent
        })
    };
    let floods = [flood(b"\x89\x80\0\0\0\0"), flood(b"\x81\x8f\0\0\0\0{\"type\":\"ping\"}")];
    let mut waits = Wire::connect(address).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(sized(2, 10) as u64) {
        assert_serves(&mut waits).await;
    }
    over.store(true, Ordering::Relaxed);
    let took = begun.elapsed().as_secs_f64();
    for flood in floods {
        let sent = flood.join().expect("no panic");
        // The burst, what the pace gives, and what sockets hold on the way.
        let most = 20_000.0 + 20_000.0 * (took + 5.0) + 2_000_000.0;
        assert!((sent as f64) < most, "{sent} frames in {took} s");
    }
    let grown = resident_kib(&server).saturating_sub(memory);
    assert!(grown < 32 * 1024, "grew by {grown} KiB");
    bystander.report("floods of pings and requests", &server, grown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_spawns_and_vanishes_leaves_nothing() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let warm = wire.spawn(bash("true")).await;
    wire.run_to_exit(warm).await;
    let bystander = Bystander::of(&server).await;
    let memory = resident_kib(&server);
    let times = sized(40, 1000);
    spawn_and_vanish(&server, &mut wire, times).await;
    let grown = resident_kib(&server).saturating_sub(memory);
    assert!(grown < 32 * 1024, "grew by {grown} KiB");
    bystander.report(&format!("{times} spawns by clients that vanish"), &server, grown);
    assert!(server.descendants().iter().all(|process| !process.command.contains("bash -c true")));
    // Processes that have ended are retained, and their logs are files: when all that may be are, no more come.
    let retained = 100;
    spawn_and_vanish(&server, &mut wire, retained).await;
    let full = open_files_at_rest(&server).await;
    spawn_and_vanish(&server, &mut wire, retained).await;
    // Supervisors without a program are kept for a second, each with its channel.
    settles(&server, full + 4).await;
}

/// So many clients, one after the other; returns when what they have started has ended.
async fn spawn_and_vanish(server: &Server, wire: &mut Wire, times: usize) {
    let address = server.address();
    let visits = move || {
        as_if_from_elsewhere();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            for _ in 0..times {
                let mut visitor = Wire::connect_as(address, WireOptions::modern()).await;
                let mut spawn = bash("true");
                spawn["type"] = "spawn".into();
                visitor.send(&spawn).await;
            }
        });
    };
    let (tell, told) = tokio::sync::oneshot::channel();
    let visits = std::thread::spawn(move || {
        visits();
        tell.send(()).expect("somebody waits");
    });
    told.await.expect("all were there");
    visits.join().expect("no panic");
    eventually_async(PATIENCE, "all have ended", async || {
        let status = wire.request(json!({"type": "status", "id": 1})).await;
        (status["stats"]["active"] == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_clients_are_served_at_once() {
    let server = start();
    let memory = resident_kib(&server);
    let before = open_files_at_rest(&server).await;
    let bystander = Bystander::of(&server).await;
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(Wire::connect_as(server.address(), WireOptions::modern()).await);
    }
    for client in &mut clients {
        client.send(&json!({"type": "status", "id": 1})).await;
    }
    for client in &mut clients {
        assert_eq!(client.next().await["type"], "status");
    }
    let grown = resident_kib(&server).saturating_sub(memory);
    assert!(grown < 32 * 1024, "grew by {grown} KiB");
    bystander.report("200 clients", &server, grown);
    drop(clients);
    settles(&server, before).await;
}

/// What a handshake is refused with.
async fn refusal(address: SocketAddr) -> (u16, String) {
    let error = Wire::open(address, WireOptions::modern()).await.expect_err("no place");
    let Error::Http(response) = error else { panic!("{error}") };
    let body = response.body().clone().unwrap_or_default();
    (response.status().as_u16(), String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn connections_are_limited_by_address_and_in_all_and_the_limit_is_named() {
    let many = |name: &str| Server::start(options().env(name, "2"));
    for (setting, status) in [("MHNOS_MAX_CONNECTIONS", 503), ("MHNOS_MAX_CONNECTIONS_PER_ADDRESS", 429)] {
        let server = many(setting);
        let mut first = Wire::connect(server.address()).await;
        let second = Wire::connect(server.address()).await;
        let (got, body) = refusal(server.address()).await;
        assert!(got == status && body.contains(setting), "{got}: {body}");
        assert_serves(&mut first).await;
        assert_eq!(server.get("/health").status, 200, "a probe needs no place");
        drop(second);
        eventually_async(PATIENCE, "the place is free again", async || {
            Wire::open(server.address(), WireOptions::modern()).await.ok().map(drop)
        })
        .await;
    }
}

#[tokio::test]
async fn before_the_token_a_client_may_say_little() {
    let server = Server::start(options().env("MHNOS_AUTH_TOKEN", "correct-horse-battery-staple"));
    let mut wire = Wire::open(server.address(), WireOptions::modern()).await.expect("a handshake");
    let long = json!({"type": "auth", "token": "x".repeat(20_000)}).to_string();
    let _ = wire.send_message(Message::text(long)).await;
    let answer = wire.next().await;
    assert_eq!(answer["code"], "UNAUTHORIZED", "{answer}");
    assert!(answer["error"].as_str().is_some_and(|text| text.contains("8192 bytes")), "{answer}");
    assert_eq!(wire.closed().await.map(|close| u16::from(close.code)), Some(1008));
}

#[tokio::test]
async fn spawns_beyond_the_pace_are_refused_and_start_nothing() {
    let server = start();
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    // Spawns that fail cost as much at the door, and less on the machine.
    let burst = 3000;
    let mut spawn = json!({"type": "spawn", "id": 1, "processType": "node", "command": "missing.js"});
    let mut refused = 0;
    for begin in (0..burst).step_by(100) {
        for id in begin..begin + 100 {
            spawn["id"] = id.into();
            wire.send(&spawn).await;
        }
        for _ in 0..100 {
            let answer = wire.next().await;
            assert_eq!(answer["type"], "error", "{answer}");
            refused += usize::from(answer["code"] == "TOO_MANY_REQUESTS");
        }
        if refused > 0 {
            break;
        }
    }
    assert!(refused > 0, "{burst} spawns in a row were all looked at");
    eventually_async(PATIENCE, "spawns are taken again", async || {
        let mut good = bash("true");
        good["type"] = "spawn".into();
        good["id"] = "good".into();
        (wire.request(good).await["type"] == "spawned").then_some(())
    })
    .await;
}
