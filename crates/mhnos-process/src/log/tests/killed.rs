//! A writer that is really killed: another process (this test's own executable) moves output into the log
//! and gets SIGKILL at random moments; every byte must be there once, in order.
#![expect(clippy::disallowed_methods, reason = "a test starts the process that it kills")]

use std::{
    os::fd::AsFd,
    process::{Child, Command, Stdio},
    time::Duration,
};

use mhnos_keeper::socket::{Blocking, Socket};
use rustix::{
    pty::OpenptFlags,
    termios::{OptionalActions, tcgetattr, tcsetattr},
};

use super::*;

const ROUNDS: usize = 150;
const BYTES_A_ROUND: usize = 48 * 1024;
/// More than a round writes and two full pipes held before, so that each round can be checked whole.
const CAPACITY: u64 = 256 * 1024;
const VICTIM: &str = "log::tests::killed::victim";

/// What the victim is handed: the log, then what it reads.
struct Handed {
    file: OwnedFd,
    /// Read ends of stdout and stderr, or master and scratch pipe.
    sources: Vec<OwnedFd>,
    terminal: bool,
}

impl Handed {
    fn start(&self) -> (Child, Socket) {
        let (ours, theirs) = Socket::pair(Blocking::Yes).expect("socketpair");
        let child = Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", VICTIM, "--ignored", "--nocapture"])
            .stdin(theirs.into_fd())
            .stdout(Stdio::null())
            .spawn()
            .expect("spawn");
        let fds: Vec<_> = std::iter::once(&self.file).chain(&self.sources).map(AsFd::as_fd).collect();
        ours.send(&self.terminal, &fds).expect("send");
        ours.recv::<()>().expect("the victim is ready");
        (child, ours)
    }

    fn recover(&self) -> LogWriter {
        let file = self.file.try_clone().expect("dup");
        let scratch = self.terminal.then(|| {
            let end = |index: usize| self.sources[index].try_clone().expect("dup");
            (end(1), end(2))
        });
        recover(file, scratch).expect("recover")
    }
}

/// Not a test of its own: the process that is killed.
#[test]
#[ignore = "started by the tests of this module"]
fn victim() {
    let Ok(stdin) = std::io::stdin().as_fd().try_clone_to_owned() else { return };
    let keeper = Socket::from_fd(stdin);
    let Ok(handed) = keeper.recv::<bool>() else { return };
    let mut fds = handed.fds.into_iter();
    let file = fds.next().expect("log");
    let sources: Vec<_> = fds.collect();
    let sent = Handed { file, sources, terminal: handed.message };
    let mut writer = sent.recover();
    keeper.send(&(), &[]).expect("ready");
    loop {
        if sent.terminal {
            writer.move_terminal(sent.sources[0].as_fd(), 4096).expect("move");
        } else {
            writer.move_pipe(Stream::Stdout, sent.sources[0].as_fd(), 5000).expect("move");
            writer.move_pipe(Stream::Stderr, sent.sources[1].as_fd(), 70_000).expect("move");
        }
    }
}

/// Endless bytes of one stream, in which each place can be told from its neighbours.
struct Source {
    write: OwnedFd,
    written: u64,
    seen: u64,
}

fn byte_at(stream: usize, place: u64) -> u8 {
    ((place ^ (place >> 8) ^ (place >> 16)) as u8).wrapping_mul(31).wrapping_add(stream as u8 * 101)
}

impl Source {
    fn new(write: OwnedFd) -> Self {
        Self { write, written: 0, seen: 0 }
    }

    /// Writes what fits now, at most `len` bytes.
    fn write(&mut self, stream: usize, len: usize) -> usize {
        let bytes: Vec<u8> = (0..len as u64).map(|i| byte_at(stream, self.written + i)).collect();
        let written = rustix::io::write(&self.write, &bytes).unwrap_or(0);
        self.written += written as u64;
        written
    }
}

/// A small, seeded generator: tests need variety, not randomness.
fn next(noise: &mut u64) -> u64 {
    *noise ^= *noise << 13;
    *noise ^= *noise >> 7;
    *noise ^= *noise << 17;
    *noise
}

fn kill_over_and_over(handed: &Handed, mut sources: Vec<Source>) {
    let mut noise = 0x9E37_79B9_7F4A_7C15;
    let mut position = 0;
    for round in 0..ROUNDS {
        let (mut child, _channel) = handed.start();
        let mut budget = BYTES_A_ROUND;
        let mut steps = next(&mut noise) % 60;
        while steps > 0 && budget > 0 {
            let stream = next(&mut noise) as usize % sources.len();
            let len = (1 + next(&mut noise) as usize % 4000).min(budget);
            budget -= sources[stream].write(stream, len);
            std::thread::sleep(Duration::from_micros(next(&mut noise) % 40));
            steps -= 1;
        }
        child.kill().expect("kill");
        child.wait().expect("wait");
        let writer = handed.recover();
        position = check(&writer, position, &mut sources, round);
    }
    assert!(position > BYTES_A_ROUND as u64 * 4, "only {position} bytes came through");
    finish(handed, position, &mut sources);
}

/// Compares what is new in the log with what was written.
fn check(writer: &LogWriter, position: u64, sources: &mut [Source], round: usize) -> u64 {
    let mut viewer = Viewer::new(writer.log().clone(), Replay::After(position), Arc::new(Notify::new()));
    loop {
        let next = viewer.next(usize::MAX, |piece| {
            let source = &mut sources[piece.stream.index()];
            for byte in piece.bytes {
                assert_eq!(
                    *byte,
                    byte_at(piece.stream.index(), source.seen),
                    "round {round}, place {}",
                    source.seen
                );
                source.seen += 1;
            }
            assert!(source.seen <= source.written);
        });
        match next {
            Next::Nothing => return viewer.position(),
            Next::Output(()) => {}
            other => panic!("round {round}: {other:?}"),
        }
    }
}

/// The survivor reads the rest: nothing may be missing.
fn finish(handed: &Handed, mut position: u64, sources: &mut [Source]) {
    let mut writer = handed.recover();
    let mut idle = 0;
    while idle < 2 {
        let mut moved = false;
        for (index, stream) in [Stream::Stdout, Stream::Stderr].into_iter().take(sources.len()).enumerate() {
            let step = if handed.terminal {
                writer.move_terminal(handed.sources[0].as_fd(), 4096)
            } else {
                writer.move_pipe(stream, handed.sources[index].as_fd(), 4096)
            };
            moved |= matches!(step.expect("move"), Moved::Bytes(_));
        }
        idle = if moved { 0 } else { idle + 1 };
        position = check(&writer, position, sources, ROUNDS);
    }
    for source in sources {
        assert_eq!(source.seen, source.written, "bytes that never came");
    }
}

#[test]
fn killed_while_reading_two_pipes_nothing_is_lost_or_doubled() {
    let (out, err) = (nonblocking_pipe(), nonblocking_pipe());
    let file = log_file::create(CAPACITY).expect("create");
    let handed = Handed { file, sources: vec![out.0, err.0], terminal: false };
    kill_over_and_over(&handed, vec![Source::new(out.1), Source::new(err.1)]);
}

#[test]
fn killed_while_reading_a_terminal_nothing_is_lost_or_doubled() {
    let master =
        rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("openpt");
    rustix::pty::unlockpt(&master).expect("unlockpt");
    rustix::io::ioctl_fionbio(&master, true).expect("nonblocking");
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).expect("slave");
    rustix::io::ioctl_fionbio(&slave, true).expect("nonblocking");
    let mut raw = tcgetattr(&slave).expect("tcgetattr");
    raw.make_raw();
    tcsetattr(&slave, OptionalActions::Now, &raw).expect("tcsetattr");
    let scratch = nonblocking_pipe();
    let file = log_file::create(CAPACITY).expect("create");
    let handed = Handed { file, sources: vec![master, scratch.0, scratch.1], terminal: true };
    kill_over_and_over(&handed, vec![Source::new(slave)]);
}
