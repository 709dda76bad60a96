//! A bridge that has been taken over says what it likes, and dies when it likes. The keeper goes on, leaks no
//! descriptor and starts nothing outside a sandbox.
//!
//! The keeper of this test may have few descriptors ([`descriptors`](crate::descriptors)); what the bridge sends brings many times as
//! many.
//!
//! [`ROUNDS_ASKED`] makes it longer, and [`SEED_ASKED`] different (`make test-hostile`).

use std::{
    collections::BTreeSet,
    ops::Range,
    os::fd::{AsFd, BorrowedFd},
};

use mhnos_keeper::{
    channel::{FromKeeper, Isolation, MAX_NOTE, Order, Pid, Scope, ToKeeper},
    socket::{MAX_FDS, MAX_MESSAGE, sealed_memfd},
};
use mhnos_sandbox::{ExtraFd, ExtraFdKind, Launch, Limits, Stdio, WindowSize};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::{
    bridge::Bridge,
    outsiders::{an_outsider_would_be_found, nobody_is_outside},
};

/// Bridges, each killed by itself in the middle of a sentence.
const GENERATIONS: u32 = 3;
/// Rounds of one bridge. After each it makes sure that the keeper still obeys.
const ROUNDS: u64 = 12;
/// How many it shall be instead.
pub(crate) const ROUNDS_ASKED: &str = "MHNOS_TEST_ROUNDS";
/// What the malice follows from.
pub(crate) const SEED_ASKED: &str = "MHNOS_TEST_SEED";
const MESSAGES: usize = 40;
/// Good orders until one must have been obeyed: each comes when all that ran has been ended.
const ORDERS: u32 = 1000;
/// For the orders of one bridge; each has its own.
const NUMBERS: Pid = 100_000_000;

/// How often longer than usual it takes.
pub(crate) fn length() -> u32 {
    asked(ROUNDS_ASKED, ROUNDS).div_ceil(ROUNDS) as u32
}

fn asked(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

pub(crate) fn a_hostile_bridge_breaks_nothing(bridge: &mut Bridge) {
    let mut random = Random(asked(SEED_ASKED, 0x5EED) ^ u64::from(bridge.generation));
    let mut alive: BTreeSet<Pid> = bridge.adopted.iter().map(|(pid, ..)| *pid).collect();
    for pid in std::mem::take(&mut bridge.over) {
        bridge.send(&ToKeeper::Forget { pid });
        alive.remove(&pid);
    }
    hear_of_starts(bridge, &mut alive);
    if bridge.generation == 1 {
        swollen_messages_cost_the_keeper_nothing(bridge);
        an_outsider_would_be_found(bridge);
    }
    // What an earlier bridge has used of these it does not tell.
    bridge.next = bridge.next.max(bridge.generation * NUMBERS);
    clean_up(bridge, &mut alive);
    for _ in 0..asked(ROUNDS_ASKED, ROUNDS) {
        hold_a_program(bridge, &mut alive);
        for _ in 0..MESSAGES {
            attack(bridge, &mut random, Numbers::Honest);
        }
        nobody_is_outside(bridge);
        clean_up(bridge, &mut alive);
    }
    if bridge.generation < GENERATIONS {
        for _ in 0..MESSAGES {
            attack(bridge, &mut random, Numbers::Honest);
        }
        std::process::exit(9);
    }
    for _ in 0..MESSAGES {
        attack(bridge, &mut random, Numbers::Burnt);
    }
    clean_up(bridge, &mut alive);
    // Whatever numbers have been burnt, the last ones have not.
    bridge.next = u32::MAX - 10;
    assert_eq!(bridge.run("echo still here").0, "still here\n");
}

/// Whatever was wrong with the orders of an earlier bridge, none is being carried out for ever.
fn hear_of_starts(bridge: &mut Bridge, alive: &mut BTreeSet<Pid>) {
    let mut starting: BTreeSet<Pid> = std::mem::take(&mut bridge.starting).into_iter().collect();
    while !starting.is_empty() {
        match hear(bridge, alive) {
            FromKeeper::Adopt(adoption) => {
                starting.remove(&adoption.pid);
                match adoption.usage {
                    Some(_) => bridge.send(&ToKeeper::Forget { pid: adoption.pid }),
                    None => drop(alive.insert(adoption.pid)),
                }
            }
            FromKeeper::Refused { pid, .. } => drop(starting.remove(&pid)),
            _ => {}
        }
    }
}

/// Starts what would do no harm in a sandbox, and looks at it while it runs: there is something to find outside.
fn hold_a_program(bridge: &mut Bridge, alive: &mut BTreeSet<Pid>) {
    let mut pid = order_to_sleep(bridge, Isolation::Shared);
    let mut orders = 1;
    loop {
        match hear(bridge, alive) {
            FromKeeper::Started { pid: started, .. } if started == pid => break,
            FromKeeper::Refused { pid: refused, failure } if refused == pid => {
                // What is being started still may have all the descriptors, but not for ever.
                let few = [libc::EMFILE, libc::ETOOMANYREFS].contains(&failure.errno);
                assert!(few && orders < ORDERS, "good order {orders} was refused: {failure:?}");
                clean_up(bridge, alive);
                pid = order_to_sleep(bridge, Isolation::Shared);
                orders += 1;
            }
            _ => {}
        }
    }
    assert!(nobody_is_outside(bridge) > 0, "a program runs that was not looked at");
}

fn order_to_sleep(bridge: &mut Bridge, isolation: Isolation) -> Pid {
    bridge.order(&["sleep", "1000"], Stdio::Pipes { stdin: false }, isolation)
}

/// Messages of the greatest length whose lists hold nothing but empty elements: decoded they would take dozens of times as
/// much.
fn swollen_messages_cost_the_keeper_nothing(bridge: &mut Bridge) {
    let before = peak_kib();
    for list in 0..3 {
        let file = sealed_memfd(&swollen(bridge, list)).expect("a file in memory");
        send_raw(bridge, &[1], &[file.as_fd()]);
    }
    assert_eq!(bridge.run("echo still here").0, "still here\n");
    let grown = peak_kib() - before;
    // Each is read whole before it is refused.
    assert!(grown < (MAX_MESSAGE as u64 + (16 << 20)) / 1024, "the keeper grew by {grown} KiB");
}

/// An order with very many arguments, variables or descriptors.
fn swollen(bridge: &Bridge, list: usize) -> Vec<u8> {
    let many = (MAX_MESSAGE - 4096) as u32;
    let none: [u8; 0] = [];
    // In the order of the fields: what stands before the lists, the lists, and what comes after.
    let mut bytes = postcard::to_stdvec(&(3_u8, bridge.next, "true")).expect("plain data");
    bytes[0] = postcard::to_stdvec(&ToKeeper::Spawn(order_of_nothing())).expect("plain data")[0];
    for number in 0..3 {
        if number == 2 {
            bytes.extend(postcard::to_stdvec("/").expect("plain data"));
        }
        if number == list {
            bytes.extend(postcard::to_stdvec(&many).expect("plain data"));
            bytes.resize(bytes.len() + many as usize - 1024, 0);
        } else {
            bytes.extend(postcard::to_stdvec(&none[..]).expect("plain data"));
        }
    }
    bytes
}

fn order_of_nothing() -> Order {
    Order {
        pid: 0,
        launch: Launch {
            program: String::new(),
            argv: Vec::new(),
            env: Vec::new(),
            cwd: String::new(),
            extra_fds: Vec::new(),
        },
        stdio: Stdio::Pipes { stdin: false },
        isolation: Isolation::Shared,
        limits: Limits { memory: 0, pids: 0, cpu_millis: 0 },
        note: Vec::new(),
    }
}

/// The most memory the keeper has ever had.
fn peak_kib() -> u64 {
    let keeper = rustix::process::getppid().expect("keeper").as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{keeper}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("proc_pid_status(5)");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

/// Whether malice extends to the numbers of orders.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Numbers {
    /// Orders that are refused for what else is wrong with them, or obeyed.
    Honest,
    /// One bit turned over may make a number so high that all orders are refused from then on for theirs.
    Burnt,
}

/// One message, of any degree of malice.
fn attack(bridge: &mut Bridge, random: &mut Random, numbers: Numbers) {
    if random.below(8) == 0 {
        // Beside what is malicious by its form, what would do no harm in a sandbox.
        let isolation = if random.below(6) == 0 { Isolation::Private } else { Isolation::Shared };
        order_to_sleep(bridge, isolation);
        return;
    }
    let fds: Vec<_> = (0..random.below(MAX_FDS)).map(|_| descriptor(random)).collect();
    let message = message(bridge, random);
    let mut bytes = postcard::to_stdvec(&message).expect("plain data");
    match random.below(8) {
        // Bits turned over, cut short, or noise from the start.
        0 => {
            let kept = kept(&message, numbers);
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len());
                if !kept.contains(&at) {
                    bytes[at] ^= 1 << random.below(8);
                }
            }
        }
        1 => bytes.truncate(random.below(bytes.len())),
        2 => bytes = (0..random.below(300)).map(|_| random.below(256) as u8).collect(),
        _ => {}
    }
    let frame = match random.below(6) {
        // In the first descriptor, whatever that is.
        0 => vec![1],
        1 => vec![random.below(256) as u8],
        2 => Vec::new(),
        _ => [&[0], &bytes[..bytes.len().min(30_000)]].concat(),
    };
    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    // An empty datagram would be the end of the channel.
    if !frame.is_empty() {
        send_raw(bridge, &frame, &borrowed);
    }
}

fn send_raw(bridge: &Bridge, frame: &[u8], fds: &[BorrowedFd<'_>]) {
    loop {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds)));
        match sendmsg(bridge.channel(), &[std::io::IoSlice::new(frame)], &mut control, SendFlags::NOSIGNAL) {
            // As many descriptors are on their way as may be (unix(7)), and the keeper has not had its turn.
            Err(rustix::io::Errno::TOOMANYREFS) => std::thread::yield_now(),
            sent => {
                sent.expect("the keeper listens");
                return;
            }
        }
    }
}

/// Where the number of an order stands.
fn kept(message: &ToKeeper, numbers: Numbers) -> Range<usize> {
    match message {
        ToKeeper::Spawn(order) if numbers == Numbers::Honest => {
            1..1 + postcard::to_stdvec(&order.pid).expect("plain data").len()
        }
        _ => 0..0,
    }
}

fn descriptor(random: &mut Random) -> std::os::fd::OwnedFd {
    match random.below(5) {
        0 => std::fs::File::open("/dev/null").expect("it is there").into(),
        1 => rustix::pipe::pipe().expect("a pipe").0,
        2 => sealed_memfd(&[0xff; 64]).expect("a file in memory"),
        3 => sealed_memfd(&postcard::to_stdvec(&ToKeeper::Hello).expect("plain data"))
            .expect("a file in memory"),
        _ => rustix::fs::memfd_create("unsealed", rustix::fs::MemfdFlags::CLOEXEC).expect("a file in memory"),
    }
}

fn message(bridge: &mut Bridge, random: &mut Random) -> ToKeeper {
    let pid = match random.below(4) {
        0 => random.below(2000) as Pid,
        _ => bridge.next.saturating_sub(random.below(20) as Pid),
    };
    let scope = if random.below(2) == 0 { Scope::Tree } else { Scope::Leader };
    match random.below(14) {
        0 => ToKeeper::Hello,
        1 if random.below(2) == 0 => ToKeeper::Members { pid },
        1 => ToKeeper::Drained,
        2 => ToKeeper::CloseStdin { pid },
        3 => ToKeeper::Forget { pid },
        4 => ToKeeper::Note { pid, note: vec![1; random.pick(&[0, 10, MAX_NOTE, MAX_NOTE + 1])] },
        12 | 13 => {
            ToKeeper::Dial { pid, token: random.below(3) as u32, port: random.pick(&[0, 22, 80, u16::MAX]) }
        }
        5 | 6 => ToKeeper::Signal {
            pid,
            signal: random.pick(&[0, -1, 9, 15, 19, 64, 65, i32::MIN, i32::MAX]),
            scope,
        },
        _ => ToKeeper::Spawn(order(bridge, random)),
    }
}

fn order(bridge: &mut Bridge, random: &mut Random) -> Order {
    bridge.next = bridge.next.saturating_add(1);
    let workspace = std::env::var("WORKSPACE").expect("workspace");
    let program =
        random.pick(&["true", "sleep", "/proc/self/exe", "/proc/1/exe", "", "/", "../../bin/sh", "a\0b"]);
    let cwd = match random.below(4) {
        0 => random.pick(&["/", "", "relative", "/proc/1/root", "/proc/self/fd/3", "/\0"]).to_owned(),
        _ => workspace,
    };
    let argv = match random.below(5) {
        0 => Vec::new(),
        1 => vec!["x".repeat(random.pick(&[0, 1, 20_000]))],
        _ => vec![program.to_owned(), "1000".to_owned()],
    };
    let number = random.pick(&[0, 1, 2, 3, 15, 16, 255, u32::MAX]);
    let kind = if random.below(2) == 0 { ExtraFdKind::Report } else { ExtraFdKind::Content(vec![7; 100]) };
    let extra_fds = vec![ExtraFd { fd: number, kind }; random.pick(&[0, 0, 0, 1, 2, 9])];
    let stdio = match random.below(4) {
        0 => Stdio::Pty(WindowSize { cols: random.below(3) as u16, rows: u16::MAX }),
        1 => Stdio::Pipes { stdin: true },
        _ => Stdio::Pipes { stdin: false },
    };
    let env = match random.below(4) {
        0 => vec![(random.pick(&["", "A=B", "LD_PRELOAD", "\0"]).to_owned(), "/x".to_owned())],
        _ => vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
    };
    let extreme = [0, 1, 1 << 30, u64::MAX];
    Order {
        pid: bridge.next,
        launch: Launch { program: program.to_owned(), argv, env, cwd, extra_fds },
        stdio,
        isolation: if random.below(6) == 0 { Isolation::Private } else { Isolation::Shared },
        limits: Limits {
            memory: random.pick(&extreme),
            pids: random.pick(&[0, 1, 500, u32::MAX]),
            cpu_millis: random.pick(&[0, 1, 1000, u32::MAX]),
        },
        note: vec![2; random.pick(&[0, 5, MAX_NOTE + 1])],
    }
}

/// Ends what runs. The keeper has taken all that was said before when it refuses what comes last.
fn clean_up(bridge: &mut Bridge, alive: &mut BTreeSet<Pid>) {
    bridge.next = bridge.next.saturating_add(1);
    let last = bridge.next;
    let mut refused = order(bridge, &mut Random(1));
    (refused.pid, refused.launch.argv) = (0, Vec::new());
    bridge.send(&ToKeeper::Spawn(refused));
    let mut answered = false;
    while !answered || !alive.is_empty() {
        answered |= matches!(hear(bridge, alive), FromKeeper::Refused { pid: 0, .. });
        for pid in alive.iter() {
            bridge.kill(*pid);
        }
    }
    bridge.next = last.saturating_add(1);
}

/// The next message. Whatever has been started is looked at before anything else is said about it.
fn hear(bridge: &mut Bridge, alive: &mut BTreeSet<Pid>) -> FromKeeper {
    let message = bridge.receive();
    match message {
        FromKeeper::Started { pid, .. } => {
            alive.insert(pid);
            nobody_is_outside(bridge);
        }
        FromKeeper::Ended { pid, .. } => {
            alive.remove(&pid);
            bridge.send(&ToKeeper::Forget { pid });
        }
        _ => {}
    }
    bridge.fds.clear();
    bridge.dialed.clear();
    message
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((word ^ word >> 31) % bound.max(1) as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}
