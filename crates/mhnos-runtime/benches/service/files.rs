//! Files through the socket, as the Web OS sends and takes them: arrays of numbers in JSON.
//!
//! The client that pushes must not be what is measured: its frames are made and masked before, and written to the socket as
//! they are (a WebSocket library that moves what is left after every write takes longer for 19 MB than the service does). The
//! one who pings meanwhile is a thread of its own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mhnos_testing::{Server, Wire};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    cost::{cpu_seconds, peak_kib},
    millis, percentile, report, start,
};

const LARGE: usize = 5 << 20;
const LARGE_ROUNDS: usize = 15;
const SMALL: usize = 1024;
const SMALL_FILES: usize = 2000;
const SMALL_ROUNDS: usize = 5;
const BATCH: usize = 5;
const PULLED: usize = 24 << 20;

pub(crate) async fn both_ways() {
    large_pushes();
    small_pushes();
    pull().await;
}

fn large_pushes() {
    let server = start();
    let mut pusher = Pusher::connect(&server);
    let content = bytes(LARGE);
    let frame = push_frame(&[("/large".to_owned(), &content)]);
    let before = peak_kib(&server);
    let cpu = cpu_seconds(&server);
    let mut quiet = Pings::start(&server).stop_after(Duration::from_millis(500));
    let mut times = Vec::new();
    let mut worst = Vec::new();
    let cpu_of_pings = cpu_seconds(&server) - cpu;
    for _ in 0..LARGE_ROUNDS {
        let pings = Pings::start(&server);
        let begin = Instant::now();
        pusher.push(&frame, 1);
        times.push(begin.elapsed());
        worst.push(pings.stop().into_iter().max().unwrap_or_default());
    }
    let peak = peak_kib(&server);
    assert!(std::fs::read(server.workspace().join("large")).expect("pushed") == content, "the file differs");
    let floor = (0..LARGE_ROUNDS).map(|_| directly(&server, &content)).min().unwrap_or_default();
    report(
        &format!("push of 5 MiB, a frame of {:.1} MB", frame.len() as f64 / 1e6),
        &format!("median {}, worst {}; writing the file {}", middle(&mut times), most(&times), millis(floor)),
    );
    report(
        "  others' worst ping meanwhile",
        &format!(
            "median {}, worst {} (without a push {})",
            middle(&mut worst),
            most(&worst),
            millis(percentile(&mut quiet, 100))
        ),
    );
    report("  CPU time of the bridge for one, pings included", &{
        let seconds = cpu_seconds(&server) - cpu - cpu_of_pings;
        format!("{:.0} ms", seconds * 1e3 / LARGE_ROUNDS as f64)
    });
    report(
        "  memory of the bridge",
        &format!("{:.1} MiB before, at most {:.1} MiB", before as f64 / 1024.0, peak as f64 / 1024.0),
    );
}

fn small_pushes() {
    let content = bytes(SMALL);
    let mut rates = Vec::new();
    let mut floor = Vec::new();
    for _ in 0..SMALL_ROUNDS {
        let server = start();
        let mut pusher = Pusher::connect(&server);
        let paths: Vec<String> = (0..SMALL_FILES).map(|number| format!("/project/file-{number}")).collect();
        let batch = |paths: &[String]| {
            let files: Vec<_> = paths.iter().map(|path| (path.clone(), content.as_slice())).collect();
            push_frame(&files)
        };
        let frames: Vec<Vec<u8>> = paths.chunks(BATCH).map(batch).collect();
        let begin = Instant::now();
        for frame in &frames {
            pusher.push(frame, BATCH);
        }
        rates.push(SMALL_FILES as f64 / begin.elapsed().as_secs_f64());
        let begin = Instant::now();
        for number in 0..SMALL_FILES {
            let file = server.workspace().join(format!("direct-{number}"));
            std::fs::write(file, &content).expect("the workspace is writable");
        }
        floor.push(SMALL_FILES as f64 / begin.elapsed().as_secs_f64());
    }
    rates.sort_unstable_by(f64::total_cmp);
    floor.sort_unstable_by(f64::total_cmp);
    report(
        "push of 2,000 files of 1 KiB, five a message",
        &format!(
            "{:.0} files/s ({:.0} to {:.0}); writing them directly {:.0} files/s",
            rates[rates.len() / 2],
            rates[0],
            rates[rates.len() - 1],
            floor[floor.len() / 2]
        ),
    );
}

async fn pull() {
    let server = start();
    server.write("large", bytes(PULLED));
    let mut wire = Wire::connect(server.address()).await;
    let before = peak_kib(&server);
    let begin = Instant::now();
    wire.send(&json!({"type": "fsync", "id": 1, "operation": "pull"})).await;
    let Some(Message::Text(text)) = wire.next_frame().await else { panic!("a text message") };
    let time = begin.elapsed();
    assert!(text.len() > 3 * PULLED && text.ends_with("\"id\":1}"), "{} bytes", text.len());
    let peak = peak_kib(&server);
    report(
        &format!("pull of 24 MiB, a message of {:.0} MB", text.len() as f64 / 1e6),
        &format!(
            "{}; the bridge grows from {:.1} to at most {:.1} MiB",
            millis(time),
            before as f64 / 1024.0,
            peak as f64 / 1024.0
        ),
    );
}

/// A client that does nothing but ping, a thousand times a second, until it is stopped. More would be a load of its own.
struct Pings {
    ended: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<Duration>>,
}

impl Pings {
    /// Returns when the first ping has been answered.
    fn start(server: &Server) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (address, seen) = (server.address(), Arc::clone(&ended));
        let (ready, begun) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut wire = Wire::connect(address).await;
                wire.request(json!({"type": "ping", "id": "first"})).await;
                ready.send(()).expect("the starter waits");
                let mut times = Vec::new();
                let mut rounds = tokio::time::interval(Duration::from_millis(1));
                while !seen.load(Ordering::Acquire) {
                    rounds.tick().await;
                    let begin = Instant::now();
                    let answer = wire.request(json!({"type": "ping", "id": times.len()})).await;
                    times.push(begin.elapsed());
                    assert_eq!(answer["type"], "pong");
                }
                times
            })
        });
        begun.recv().expect("the first ping is answered");
        Self { ended, thread }
    }

    fn stop(self) -> Vec<Duration> {
        self.ended.store(true, Ordering::Release);
        self.thread.join().expect("every ping is answered")
    }

    fn stop_after(self, time: Duration) -> Vec<Duration> {
        std::thread::sleep(time);
        self.stop()
    }
}

/// The page's connection, reduced to what a push needs.
struct Pusher {
    socket: TcpStream,
}

impl Pusher {
    fn connect(server: &Server) -> Self {
        let mut socket = TcpStream::connect(server.address()).expect("the service listens");
        socket.set_nodelay(true).expect("a socket of ours");
        let request = "GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:8080\r\nUpgrade: websocket\r\n\
                       Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
        socket.write_all(request.as_bytes()).expect("the service reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).expect("the service answers");
            head.extend(byte);
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        let mut pusher = Self { socket };
        assert!(pusher.next().contains("\"connected\""));
        pusher
    }

    /// Sends a push and takes both answers that the page gets.
    fn push(&mut self, frame: &[u8], files: usize) {
        self.socket.write_all(frame).expect("the service reads");
        for kind in ["fsyncResult", "status"] {
            let answer: Value = serde_json::from_str(&self.next()).expect("JSON");
            assert_eq!(
                (&answer["type"], &answer["results"]["synced"]),
                (&json!(kind), &json!(files)),
                "{answer}"
            );
        }
    }

    /// The next message: one frame, unmasked, with a length of at most 16 bits.
    fn next(&mut self) -> String {
        let mut head = [0; 2];
        self.socket.read_exact(&mut head).expect("the service answers");
        let mut length = usize::from(head[1]);
        if length == 126 {
            self.socket.read_exact(&mut head).expect("the service answers");
            length = usize::from(u16::from_be_bytes(head));
        }
        let mut text = vec![0; length];
        self.socket.read_exact(&mut text).expect("the service answers");
        String::from_utf8(text).expect("UTF-8")
    }
}

/// A push as one masked frame.
fn push_frame(files: &[(String, &[u8])]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x5a, 0xc3, 0x17, 0x99];
    let entry = |(path, content): &(String, &[u8])| -> Value {
        json!({"path": path, "kind": "file", "content": content, "mtime": 1_700_000_000_000_u64})
    };
    let files: Vec<Value> = files.iter().map(entry).collect();
    let text = json!({"type": "fsync", "id": "req-1", "operation": "push", "files": files}).to_string();
    let mut frame = vec![0x81, 0xff];
    frame.extend((text.len() as u64).to_be_bytes());
    frame.extend(MASK);
    frame.extend(text.bytes().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Bytes of every value, as in a compressed file: what takes longest to read as numbers.
fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn directly(server: &Server, content: &[u8]) -> Duration {
    let begin = Instant::now();
    std::fs::write(server.workspace().join("direct"), content).expect("the workspace is writable");
    begin.elapsed()
}

fn middle(times: &mut [Duration]) -> String {
    millis(percentile(times, 50))
}

fn most(times: &[Duration]) -> String {
    millis(times.iter().copied().max().unwrap_or_default())
}
