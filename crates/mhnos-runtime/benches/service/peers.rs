//! Others that bring a program to a WebSocket, in the same run where they are installed: websocketd (Debian has it).
//! What is not installed is said to be missing, and nothing else.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mhnos_testing::eventually;

use crate::{median, pattern::Pattern, percentiles, report, socket::Socket};

/// From its start until it listens.
const SOON: Duration = Duration::from_secs(10);
const ROUNDS: usize = 5;

/// A running websocketd, one program for each connection.
struct Websocketd {
    child: Child,
    address: SocketAddr,
}

impl Websocketd {
    fn start(options: &[&str], script: &str) -> Option<Self> {
        let free =
            TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
        let started = Command::new("websocketd")
            .args(options)
            .args([&format!("--port={}", free.port()), "--address=127.0.0.1", "bash", "-c", script])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        if let Ok(child) = started {
            return Some(Self { child, address: free });
        }
        report("  websocketd", "is not installed");
        None
    }

    fn connect(&self) -> Socket {
        eventually(SOON, "websocketd listens", || {
            Socket::open(self.address, "Origin: http://localhost\r\n").ok()
        })
    }
}

impl Drop for Websocketd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The output of this program, in binary frames.
pub(crate) fn throughput(script: &str, line: &str, bytes: usize) {
    let Some(peer) = Websocketd::start(&["--binary=true"], script) else { return };
    drop(peer.connect());
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        let mut socket = peer.connect();
        let (mut pattern, mut received) = (Pattern::raw(line), 0);
        while received < bytes {
            let frame = socket.next().1;
            pattern.check(frame);
            received += frame.len();
        }
        rates.push(bytes as f64 / begin.elapsed().as_secs_f64() / 1e6);
    }
    report("  websocketd, the same in binary frames", &format!("{:.0} MB/s", median(&mut rates)));
}

/// A line there and back, with a frame for each line.
pub(crate) fn echo(warm_up: usize, rounds: usize) {
    let Some(peer) = Websocketd::start(&[], "exec cat") else { return };
    let mut socket = peer.connect();
    let mut times = Vec::new();
    for round in 0..warm_up + rounds {
        let line = round.to_string();
        let begin = Instant::now();
        socket.send(&line);
        let echoed = socket.next().1;
        let time = begin.elapsed();
        assert!(echoed == line.as_bytes());
        if round >= warm_up {
            times.push(time);
        }
    }
    report("  websocketd, echo through a pipe", &percentiles(&mut times));
}
