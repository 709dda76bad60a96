//! Programs that write without end while bridges die and are replaced, and viewers come, go, crawl and sleep: every viewer has
//! every byte, or is told which ones it has missed.

use std::{
    io::{Read, Write},
    time::Duration,
};

use futures_util::future::join_all;
use mhnos_testing::{Server, Wire, WireOptions, eventually, eventually_async};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    bad_clients::web_socket,
    requests::{bash, bridge, resident_kib},
    start,
};

/// Longest time for what takes milliseconds.
const SOON: Duration = Duration::from_secs(30);
/// Longest time for that much, and for a stalled viewer to be told from a slow one, on a loaded machine.
const FLOOD: Duration = Duration::from_mins(3);
/// What the programs write, again and again.
const LINE: &str = "0123456789 and so on, for ever\n";
/// More than a log holds: whoever is left behind misses something.
const MANY: u64 = 12 << 20;

/// A client that knows what it must get.
struct Follower {
    wire: Wire,
    pid: u64,
    position: u64,
    gaps: Vec<(u64, u64)>,
}

impl Follower {
    async fn spawn(server: &Server, script: &str) -> Self {
        let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
        let pid = wire.spawn(bash(script)).await;
        Self { wire, pid, position: 0, gaps: Vec::new() }
    }

    /// Comes back as a client does that has lost its connection.
    async fn resume(&mut self, server: &Server) {
        self.wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
        let attach = json!({"type": "attach", "id": "again", "pid": self.pid, "after": self.position});
        self.wire.send(&attach).await;
    }

    /// Takes output until this position; every byte is looked at.
    async fn take_until(&mut self, position: u64) {
        while self.position < position {
            let message = self.wire.next().await;
            self.take(&message);
        }
    }

    /// Takes what the connection still has.
    async fn take_rest(&mut self) {
        while let Some(message) = self.wire.next_or_end().await {
            self.take(&message);
        }
    }

    fn take(&mut self, message: &Value) {
        match message["type"].as_str() {
            Some("stdout") => {
                let data = message["data"].as_str().expect("text").as_bytes();
                let begin = self.position as usize % LINE.len();
                let right = data.iter().zip(LINE.bytes().cycle().skip(begin)).all(|(a, b)| *a == b);
                self.position += data.len() as u64;
                assert!(right && message["seq"] == self.position, "other bytes before {}", self.position);
            }
            Some("gap") => {
                let [from, to] = ["from", "to"].map(|key| message[key].as_u64().expect("a position"));
                assert_eq!(from, self.position, "{message}");
                self.position = to;
                self.gaps.push((from, to));
            }
            Some("attached") => {}
            _ => panic!("{message}"),
        }
    }
}

fn flood() -> String {
    format!("exec yes '{}'", LINE.trim_end())
}

/// A program that writes at full speed is not let go on beyond what its viewers can come back to.
#[tokio::test]
async fn a_flood_goes_on_at_the_same_byte_after_a_killed_bridge() {
    let server = start();
    let mut follower = Follower::spawn(&server, &flood()).await;
    for round in 1..=3 {
        follower.take_until(round * MANY).await;
        let one = eventually(SOON, "a bridge", || bridge(&server));
        kill_process(one, Signal::KILL).expect("it is ours");
        // What had left the bridge comes still, and is no reason to be told of a gap.
        follower.take_rest().await;
        eventually(SOON, "another bridge", || bridge(&server).filter(|next| *next != one));
        follower.resume(&server).await;
    }
    follower.take_until(4 * MANY).await;
    assert_eq!(follower.gaps, []);
}

/// More than the log of a program, its copy in a pipe and what a connection holds; far less than is written.
const GROWTH_KIB: u64 = 32 << 10;

/// Twice that, seen by nobody and by one who takes nothing: the newest is kept, and memory does not grow with it.
#[tokio::test]
async fn a_flood_costs_the_service_no_more_than_a_log() {
    const BYTES: u64 = 64_000_000;
    let server = start();
    // What is allocated once and for all has been.
    let mut warm = Follower::spawn(&server, &flood()).await;
    warm.take_until(10_000_000).await;
    let before = resident_kib(&server);
    for stays in [false, true] {
        let follower = Follower::spawn(&server, &format!("yes | head -c {BYTES}")).await;
        // Nothing is read from this connection from here on, if it stays at all.
        let idle = stays.then_some(follower.wire);
        let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
        let pid = follower.pid;
        eventually_async(FLOOD, "its end", async || {
            let list = wire.request(json!({"type": "list", "id": 1})).await;
            let all = list["processes"].as_array().expect("a list");
            let grown = resident_kib(&server).saturating_sub(before);
            assert!(grown < GROWTH_KIB, "{grown} KiB more: {list}");
            all.iter().all(|process| process["pid"] != pid).then_some(())
        })
        .await;
        wire.send(&json!({"type": "attach", "id": 2, "pid": pid})).await;
        let exit = wire.next_where(|message| message["type"] == "exit").await;
        assert_eq!((&exit["code"], &exit["seq"]), (&json!(0), &json!(BYTES)), "{exit}");
        drop(idle);
    }
}

/// All at once: nobody sleeps while another is looked after.
async fn take_more(followers: &mut [Follower]) {
    join_all(followers.iter_mut().map(async |follower| {
        follower.take_until(follower.position + (512 << 10)).await;
    }))
    .await;
}

/// There is always more to send to it.
#[tokio::test]
async fn a_slow_viewer_of_floods_is_told_of_an_upgrade() {
    let server = start();
    let mut socket = web_socket(server.address());
    for _ in 0..4 {
        let pid = Wire::connect(server.address()).await.spawn(bash(&flood())).await;
        let attach = json!({"type": "attach", "id": 1, "pid": pid}).to_string();
        let head = [0x81, 0x80 | attach.len() as u8, 0, 0, 0, 0];
        socket.write_all(&[&head[..], attach.as_bytes()].concat()).expect("it reads");
    }
    let (mut end, mut piece, mut read, mut told) = (Vec::new(), vec![0; 64 << 10], 0, false);
    loop {
        let more = socket.read(&mut piece).unwrap_or(0);
        if more == 0 {
            break;
        }
        end = [&end[end.len().saturating_sub(200)..], &piece[..more]].concat();
        read += more;
        if read > 16 << 20 && !told {
            server.signal(Signal::USR2);
            told = true;
        }
        // Slowness is what this is about.
        if !told {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
    let code = 1012_u16.to_be_bytes();
    let close = end.windows(4).rposition(|frame| frame[0] == 0x88 && frame[2..] == code);
    assert!(close.is_some(), "cut: {:?}", String::from_utf8_lossy(&end[end.len().saturating_sub(100)..]));
}

/// Twenty programs write at full speed, twenty clients view them.
#[tokio::test]
async fn an_upgrade_under_load_loses_no_byte() {
    let server = start();
    let mut followers = Vec::new();
    for _ in 0..20 {
        followers.push(Follower::spawn(&server, &flood()).await);
    }
    for round in 1..=2 {
        take_more(&mut followers).await;
        let one = bridge(&server).expect("a bridge");
        server.signal(Signal::USR2);
        // Each is sent away, with all that was written to it before, and comes back when it has that.
        join_all(followers.iter_mut().map(async |follower| {
            follower.take_rest().await;
            // Who does not take what was written in two seconds gets none: `a_slow_viewer_of_floods_is_told_of_an_upgrade`.
            if let Some(close) = follower.wire.closed().await {
                assert_eq!(u16::from(close.code), 1012);
            }
            follower.resume(&server).await;
        }))
        .await;
        eventually(SOON, "another bridge", || bridge(&server).filter(|next| *next != one));
        take_more(&mut followers).await;
        for follower in &followers {
            assert_eq!(follower.gaps, [], "round {round}");
        }
    }
}
