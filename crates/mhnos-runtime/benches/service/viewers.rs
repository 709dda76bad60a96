//! Many who watch, one who sleeps, and a bridge that is killed while they do.

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use mhnos_testing::{Server, eventually};
use rustix::{
    event::epoll,
    process::{Pid, Signal, kill_process},
};
use serde_json::json;

use crate::{
    cost, median,
    pattern::Pattern,
    percentile, percentiles, report,
    round_trip::ping_once,
    socket::{Kind, Socket},
    start,
};

const LINE: &str = "one line of many that all of them will see\n";
const VIEWERS: usize = 100;
const FAN_OUT_BYTES: usize = (32 << 20) - (32 << 20) % LINE.len();
const FAN_OUT_ROUNDS: usize = 3;
const STALL_BYTES: usize = 500_000_000 - 500_000_000 % LINE.len();
/// Just within the stall deadline of ten seconds, and beyond it.
const STALLS: [(Duration, bool); 2] =
    [(Duration::from_millis(9_500), false), (Duration::from_secs(13), true)];
const KILLS: usize = 7;
/// For a new bridge. Reached on failure only.
const SOON: Duration = Duration::from_secs(20);

/// One program, watched by a hundred clients, each of which gets every byte.
pub(crate) fn fan_out() {
    let server = start();
    let (mut rates, mut cpu, mut peak) = (Vec::new(), 0.0, 0);
    for _ in 0..FAN_OUT_ROUNDS {
        let mut spawner = Socket::connect(server.address(), "mhnos.v1.binary");
        let script = format!("read go; yes '{}' | head -c {FAN_OUT_BYTES}", LINE.trim_end());
        let pid = spawner.spawn(&script, false);
        let mut crowd = Crowd::gather(&server, pid);
        spawner.request(json!({"type": "detach", "pid": pid}));
        cost::forget_peak(&server);
        let (resident, before) = (cost::resident_kib(&server), cost::cpu_seconds(&server));
        let begin = Instant::now();
        spawner.send(&json!({"type": "write", "pid": pid, "data": "go\n"}).to_string());
        crowd.take_all();
        rates.push((VIEWERS * FAN_OUT_BYTES) as f64 / begin.elapsed().as_secs_f64() / 1e9);
        cpu += cost::cpu_seconds(&server) - before;
        peak = peak.max(cost::peak_kib(&server).saturating_sub(resident));
    }
    let gigabytes = (FAN_OUT_ROUNDS * VIEWERS * FAN_OUT_BYTES) as f64 / 1e9;
    report(
        "fan-out to 100 viewers, binary",
        &format!(
            "{:.2} GB/s in all, {:.2} CPU-s/GB, memory at most +{:.1} MiB",
            median(&mut rates),
            cpu / gigabytes,
            peak as f64 / 1024.0
        ),
    );
}

/// Viewers on one thread, woken by epoll: a hundred threads would measure the scheduler.
struct Crowd {
    viewers: Vec<Viewer>,
    epoll: std::os::fd::OwnedFd,
    buffer: Vec<u8>,
}

struct Viewer {
    stream: TcpStream,
    /// Of a frame's head, what has come of it.
    head: Vec<u8>,
    /// Bytes of the frame that are still to come; those of the output's own head among them are passed over.
    left: usize,
    pass: usize,
    output: bool,
    pattern: Pattern,
    ended: bool,
}

impl Crowd {
    fn gather(server: &Server, pid: u64) -> Self {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll");
        let viewers: Vec<_> = (0..VIEWERS).map(|_| Viewer::attach(server, pid)).collect();
        for (number, viewer) in viewers.iter().enumerate() {
            let data = epoll::EventData::new_u64(number as u64);
            epoll::add(&epoll, &viewer.stream, data, epoll::EventFlags::IN).expect("a socket");
        }
        Self { viewers, epoll, buffer: vec![0; 256 << 10] }
    }

    fn take_all(&mut self) {
        let mut events = Vec::with_capacity(VIEWERS);
        let mut watching = VIEWERS;
        while watching > 0 {
            events.clear();
            epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None).expect("events");
            for event in &events {
                let viewer = &mut self.viewers[event.data.u64() as usize];
                let read = viewer.stream.read(&mut self.buffer).expect("it is ready");
                assert!(read > 0, "closed");
                viewer.take(&self.buffer[..read]);
                if viewer.ended {
                    epoll::delete(&self.epoll, &viewer.stream).expect("added above");
                    watching -= 1;
                }
            }
        }
        for viewer in &self.viewers {
            assert_eq!(
                viewer.pattern.lines(),
                Some(FAN_OUT_BYTES / LINE.len()),
                "every byte to every viewer"
            );
        }
    }
}

impl Viewer {
    fn attach(server: &Server, pid: u64) -> Self {
        let mut socket = Socket::connect(server.address(), "mhnos.v1.binary");
        socket.request(json!({"type": "attach", "pid": pid}));
        let (head, pattern) = (Vec::new(), Pattern::raw(LINE));
        Self { stream: socket.into_stream(), head, left: 0, pass: 0, output: false, pattern, ended: false }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while let Some(first) = bytes.first() {
            if self.left > 0 {
                let (now, rest) = bytes.split_at(self.left.min(bytes.len()));
                self.left -= now.len();
                let passed = self.pass.min(now.len());
                self.pass -= passed;
                if self.output {
                    self.pattern.check(&now[passed..]);
                }
                bytes = rest;
                continue;
            }
            self.head.push(*first);
            bytes = &bytes[1..];
            let whole = match self.head.get(1) {
                None => continue,
                Some(126) => 4,
                Some(127) => 10,
                Some(_) => 2,
            };
            if self.head.len() == whole {
                self.left = match self.head[1] {
                    short @ 0..126 => usize::from(short),
                    _ => self.head[2..].iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
                };
                // The only text that comes is the exit.
                self.output = self.head[0] & 15 == 2;
                self.ended |= self.head[0] & 15 == 1;
                self.pass = 16;
                self.head.clear();
            }
        }
    }
}

/// A viewer takes nothing for a while; another client pings. Then it takes what there is.
pub(crate) fn stalled() {
    for (stall, gap_expected) in STALLS {
        let server = start();
        let mut sleeper = Socket::connect(server.address(), "mhnos.v1.binary");
        let mut other = Socket::connect(server.address(), "mhnos.v1");
        ping_once(&mut other);
        cost::forget_peak(&server);
        let resident = cost::resident_kib(&server);
        sleeper.spawn(&format!("yes '{}' | head -c {STALL_BYTES}", LINE.trim_end()), false);
        let (mut pings, begin) = (Vec::new(), Instant::now());
        while begin.elapsed() < stall {
            let one = Instant::now();
            ping_once(&mut other);
            pings.push(one.elapsed());
            std::thread::sleep(Duration::from_millis(1));
        }
        let (mut pattern, mut missed, mut gaps) = (Pattern::raw(LINE), 0, 0);
        loop {
            let (kind, frame) = sleeper.next();
            if kind == Kind::Binary {
                pattern.check(&frame[16..]);
                continue;
            }
            let message: serde_json::Value = serde_json::from_slice(frame).expect("JSON");
            if message["type"] == "exit" {
                assert_eq!(message["seq"], STALL_BYTES, "{message}");
                break;
            }
            assert_eq!(
                (&message["type"], &message["from"]),
                (&json!("gap"), &json!(pattern.at())),
                "{message}"
            );
            let to = message["to"].as_u64().expect("a position") as usize;
            missed += to - pattern.at();
            pattern.skip_to(to);
            gaps += 1;
        }
        assert_eq!((pattern.at(), gaps > 0), (STALL_BYTES, gap_expected), "all of it, or a gap");
        let grown = cost::peak_kib(&server).saturating_sub(resident);
        report(
            &format!("a viewer stalled {:.1} s before 500 MB", stall.as_secs_f64()),
            &format!(
                "memory at most +{:.1} MiB, {missed} bytes missed in {gaps} gaps",
                grown as f64 / 1024.0
            ),
        );
        report("  another client's ping meanwhile", &percentiles(&mut pings));
    }
}

/// From SIGKILL to the bridge until a client that reconnects has the byte after the last one it had.
pub(crate) fn bridge_killed() {
    let mut times: Vec<Duration> = (0..KILLS).map(|_| kill_one_bridge()).collect();
    report(
        "bridge killed, until output goes on",
        &format!("{}, worst {:?}", percentiles(&mut times), percentile(&mut times, 100)),
    );
}

fn kill_one_bridge() -> Duration {
    let server = start();
    let mut socket = Socket::connect(server.address(), "mhnos.v1.binary");
    let pid = socket.spawn(&format!("exec yes '{}'", LINE.trim_end()), false);
    let mut pattern = Pattern::raw(LINE);
    let bridge = cost::bridge(&server);
    while pattern.at() < 10_000_000 {
        if let (Kind::Binary, frame) = socket.next() {
            pattern.check(&frame[16..]);
        }
    }
    let begin = Instant::now();
    kill_process(Pid::from_raw(bridge).expect("a pid"), Signal::KILL).expect("it is ours");
    // What the kernel had taken for this client still comes.
    while let Ok((kind, frame)) = socket.take() {
        if kind == Kind::Binary {
            pattern.check(&frame[16..]);
        }
    }
    let mut socket =
        eventually(SOON, "the next bridge", || Socket::try_connect(server.address(), "mhnos.v1.binary").ok());
    socket.send(&json!({"type": "attach", "id": 1, "pid": pid, "after": pattern.at()}).to_string());
    let mut until = None;
    let from = pattern.at();
    while pattern.at() < from + 10_000_000 {
        if let (Kind::Binary, frame) = socket.next() {
            let seq = u64::from_le_bytes(frame[8..16].try_into().expect("eight bytes")) as usize;
            assert_eq!(seq - (frame.len() - 16), pattern.at(), "at the same byte");
            pattern.check(&frame[16..]);
            until.get_or_insert_with(|| begin.elapsed());
        }
    }
    until.expect("some output")
}
