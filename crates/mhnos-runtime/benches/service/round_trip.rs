//! A message there and back: at rest, and while another client takes a flood.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mhnos_testing::Server;
use serde_json::json;

use crate::{
    cost,
    direct::Direct,
    pattern::{Pattern, data},
    peers, percentiles, report,
    socket::{self, Kind, Socket},
    start,
};

const WARM_UP: usize = 200;
const ROUNDS: usize = 5_000;
/// So many that ticks of ten milliseconds tell what one costs.
const PINGS: usize = 50_000;
const ROUNDS_IN_FLOOD: usize = 2_000;
const ON_TERMINAL: &str = "stty -echo -onlcr; echo ready; exec cat";
const ON_PIPES: &str = "echo ready; exec cat";

/// A request that the bridge answers by itself, and the floor: two threads and a socket.
pub(crate) fn ping() {
    let server = start();
    let mut socket = Socket::connect(server.address(), "mhnos.v1");
    let mut times = measure(ROUNDS, |_| ping_once(&mut socket));
    report("ping", &percentiles(&mut times));
    let before = cost::cpu_seconds(&server);
    (0..PINGS).for_each(|_| ping_once(&mut socket));
    let each = (cost::cpu_seconds(&server) - before) / PINGS as f64;
    report("  CPU time of the bridge for one", &format!("{:.1} µs", each * 1e6));
    let mut floor = bare_socket();
    report("  bare TCP, a thread that answers", &percentiles(&mut floor));
}

pub(crate) fn ping_once(socket: &mut Socket) {
    socket.send(r#"{"type":"ping","id":1}"#);
    let answer = socket.next().1;
    assert!(answer.starts_with(b"{\"type\":\"pong\""), "{}", String::from_utf8_lossy(answer));
}

fn bare_socket() -> Vec<Duration> {
    let (mut client, mut other) = socket::pair();
    let answering = std::thread::spawn(move || {
        let mut message = [0; 64];
        while let Ok(read @ 1..) = other.read(&mut message) {
            other.write_all(&message[..read]).expect("it reads");
        }
    });
    let mut message = [7; 30];
    let times = measure(ROUNDS, |_| {
        client.write_all(&message).expect("it reads");
        client.read_exact(&mut message).expect("it answers");
    });
    drop(client);
    answering.join().expect("it ends with the connection");
    times
}

/// A line through `cat`, on pipes and on a terminal.
pub(crate) fn echo() {
    let server = start();
    for (what, pty) in [("pipe", false), ("terminal", true)] {
        let mut times = echo_times(&server, pty, ROUNDS, |address| Socket::connect(address, "mhnos.v1"));
        let mut floor = echo_directly(pty);
        report(&format!("echo through a {what}"), &percentiles(&mut times));
        if pty {
            let mut paged = echo_times(&server, pty, ROUNDS, Socket::connect_as_page);
            report("  as the Web OS page", &percentiles(&mut paged));
        }
        report("  the same directly", &percentiles(&mut floor));
    }
    peers::echo(WARM_UP, ROUNDS);
}

/// The same while another client takes all that another program writes.
pub(crate) fn echo_in_flood() {
    let server = start();
    let flood = Flood::start(&server);
    for (what, pty) in [("pipe", false), ("terminal", true)] {
        let modern = |address| Socket::connect(address, "mhnos.v1");
        let mut times = echo_times(&server, pty, ROUNDS_IN_FLOOD, modern);
        report(&format!("echo through a {what} during a flood"), &percentiles(&mut times));
    }
    let mut socket = Socket::connect(server.address(), "mhnos.v1");
    let mut times = measure(ROUNDS_IN_FLOOD, |_| ping_once(&mut socket));
    report("ping during a flood", &percentiles(&mut times));
    report("  the flood meanwhile", &format!("{:.0} MB/s", flood.stop()));
    // What two cores do without any service: a pair of programs and a reader of their pipe, and the same echo.
    let (ended, reading) = flood_directly();
    for (what, pty) in [("pipe", false), ("terminal", true)] {
        report(&format!("  direct echo through a {what} during one"), &percentiles(&mut echo_directly(pty)));
    }
    ended.store(true, Ordering::Release);
    reading.join().expect("it reads to the end");
}

fn echo_times(
    server: &Server,
    pty: bool,
    rounds: usize,
    connect: impl Fn(SocketAddr) -> Socket,
) -> Vec<Duration> {
    let mut socket = connect(server.address());
    let pid = socket.spawn(if pty { ON_TERMINAL } else { ON_PIPES }, pty);
    socket.until("ready");
    measure(rounds, |round| {
        let line = format!("{round}\\n");
        socket.send(&format!(r#"{{"type":"write","pid":{pid},"data":"{line}"}}"#));
        let mut echoed = Vec::new();
        while echoed.len() < line.len() {
            echoed.extend_from_slice(data(socket.next().1).expect("output"));
        }
        assert!(echoed == line.as_bytes(), "{:?}", String::from_utf8_lossy(&echoed));
    })
}

fn echo_directly(pty: bool) -> Vec<Duration> {
    let mut program = Direct::start(if pty { ON_TERMINAL } else { ON_PIPES }, pty);
    program.until(b"ready\n");
    measure(ROUNDS, |round| {
        let line = format!("{round}\n");
        program.write(line.as_bytes());
        program.until(line.as_bytes());
    })
}

fn measure(rounds: usize, mut once: impl FnMut(usize)) -> Vec<Duration> {
    let mut times = Vec::with_capacity(rounds);
    for round in 0..WARM_UP + rounds {
        let begin = Instant::now();
        once(round);
        if round >= WARM_UP {
            times.push(begin.elapsed());
        }
    }
    times
}

const FLOOD_LINE: &str = "a flood of lines, without end and without pause\n";

/// A client that takes all that `yes` writes, and checks it.
pub(crate) struct Flood {
    ended: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<f64>,
}

impl Flood {
    /// Returns when the first of it has come.
    pub(crate) fn start(server: &Server) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (seen, address) = (Arc::clone(&ended), server.address());
        let (ready, begun) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut socket = Socket::connect(address, "mhnos.v1.binary");
            let pid = socket.spawn(&format!("exec yes '{}'", FLOOD_LINE.trim_end()), false);
            let (mut pattern, mut bytes) = (Pattern::raw(FLOOD_LINE), 0);
            let begin = Instant::now();
            while !seen.load(Ordering::Acquire) {
                if let (Kind::Binary, frame) = socket.next() {
                    pattern.check(&frame[16..]);
                    if bytes == 0 {
                        ready.send(()).expect("the starter waits");
                    }
                    bytes += frame.len();
                }
            }
            let rate = bytes as f64 / begin.elapsed().as_secs_f64() / 1e6;
            socket.request(json!({"type": "kill", "pid": pid, "signal": "SIGKILL"}));
            rate
        });
        begun.recv().expect("the flood begins");
        Self { ended, thread }
    }

    /// Its rate in MB/s.
    pub(crate) fn stop(self) -> f64 {
        self.ended.store(true, Ordering::Release);
        self.thread.join().expect("every byte is right")
    }
}

fn flood_directly() -> (Arc<AtomicBool>, std::thread::JoinHandle<()>) {
    let ended = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ended);
    let reading = std::thread::spawn(move || {
        let mut program = Direct::start(&format!("exec yes '{}'", FLOOD_LINE.trim_end()), false);
        let mut buffer = vec![0; 256 << 10];
        while !seen.load(Ordering::Acquire) {
            program.read(&mut buffer);
        }
    });
    (ended, reading)
}
