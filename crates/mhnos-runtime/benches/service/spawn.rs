//! From asking for a program to its first byte.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mhnos_testing::{Wire, tool};
use serde_json::{Value, json};

use crate::{millis, percentile, percentiles, report, socket, start};

const ROUNDS: usize = 40;

/// From starting the service to the first message to a client.
pub(crate) async fn service_start() {
    let mut times = Vec::new();
    for _ in 0..10 {
        let begin = Instant::now();
        let server = start();
        let _wire = Wire::connect(server.address()).await;
        times.push(begin.elapsed());
    }
    report("start of the service to `connected`", &percentiles(&mut times));
}

/// The same short programs through the service, directly, and through a relay, in turn.
pub(crate) async fn short_programs() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let node = tool("node").display().to_string();
    let programs = [
        ("bash -c 'echo x'", "shell", "bash", vec!["-c", "echo x"], "/bin/bash".to_owned()),
        ("node -p 1", "node", "-p", vec!["1"], node),
        ("python3 -c 'print(1)'", "python", "-c", vec!["print(1)"], "/usr/bin/python3".to_owned()),
    ];
    for (what, kind, command, args, program) in programs {
        let spawn = json!({"processType": kind, "command": command, "args": args, "options": {"pty": false}});
        let direct_args: Vec<&str> =
            if kind == "shell" { args.clone() } else { [&[command], args.as_slice()].concat() };
        let (mut spawned, mut first, mut direct) = (Vec::new(), Vec::new(), Vec::new());
        let (mut relay, mut relayed) = (Relay::start(&program, &direct_args), Vec::new());
        let (mut chain, mut chained) = (Chain::start(&program, &direct_args), Vec::new());
        for round in 0..ROUNDS {
            // A B B A: neither side always comes first.
            if round % 2 == 0 {
                service(&mut wire, &spawn, &mut spawned, &mut first).await;
                direct.push(directly(&program, &direct_args));
            } else {
                direct.push(directly(&program, &direct_args));
                service(&mut wire, &spawn, &mut spawned, &mut first).await;
            }
            relayed.push(relay.first_byte());
            chained.push(chain.started());
        }
        let by_chain = format!("{}; by a chain {}", percentiles(&mut spawned), percentiles(&mut chained));
        report(&format!("{what}: to `spawned`"), &by_chain);
        let floor = percentile(&mut direct, 50);
        let ratio = |times: &mut [Duration]| percentile(times, 50).as_secs_f64() / floor.as_secs_f64();
        let (ours, least) = (ratio(&mut first), ratio(&mut relayed));
        let figures = format!(
            "{}; direct p50 {}, ratio {ours:.2}; by a relay {least:.2}",
            percentiles(&mut first),
            millis(floor)
        );
        report(&format!("{what}: to the first byte"), &figures);
    }
}

/// What anything between a client and a program costs at least: a thread that starts it when a byte comes by TCP, and
/// sends what it reads.
struct Relay {
    client: TcpStream,
}

impl Relay {
    fn start(program: &str, args: &[&str]) -> Self {
        let (client, mut server) = socket::pair();
        let mut command = command(program, args);
        thread::spawn(move || {
            while server.read_exact(&mut [0]).is_ok() {
                let (mut child, output) = started(&mut command);
                server.write_all(&output).expect("our own client");
                assert!(child.wait().expect("our own child").success());
            }
        });
        Self { client }
    }

    fn first_byte(&mut self) -> Duration {
        let begin = Instant::now();
        self.client.write_all(b"x").expect("a relay");
        let read = self.client.read(&mut [0; 16]).expect("a relay");
        assert!(read > 0);
        begin.elapsed()
    }
}

/// What word of a start costs at least where three hand it on, none of which may do another's work (whoever speaks with
/// clients starts no programs, whoever starts them lives outside their sandboxes): threads with a socket between each
/// two, the last of which starts the program with vfork.
struct Chain {
    client: TcpStream,
}

impl Chain {
    fn start(program: &str, args: &[&str]) -> Self {
        let (client, server) = socket::pair();
        let (bridge, keeper) = UnixStream::pair().expect("sockets");
        let (starter, mut recruit) = UnixStream::pair().expect("sockets");
        thread::spawn(move || hand_on(server, bridge));
        thread::spawn(move || hand_on(keeper, starter));
        let mut command = command(program, args);
        thread::spawn(move || {
            while recruit.read_exact(&mut [0]).is_ok() {
                let child = command.spawn().expect("the program is there");
                recruit.write_all(b"x").expect("the chain");
                assert!(child.wait_with_output().expect("our own child").status.success());
                recruit.write_all(b"x").expect("the chain");
            }
        });
        Self { client }
    }

    /// Until the program has been started; returns when it has ended, too.
    fn started(&mut self) -> Duration {
        let begin = Instant::now();
        self.client.write_all(b"x").expect("a chain");
        self.client.read_exact(&mut [0]).expect("a chain");
        let time = begin.elapsed();
        self.client.read_exact(&mut [0]).expect("a chain");
        time
    }
}

/// Hands on each order, and the two words that come of it.
fn hand_on(mut near: impl Read + Write, mut far: impl Read + Write) {
    let mut byte = [0];
    while near.read_exact(&mut byte).is_ok() {
        far.write_all(&byte).expect("the chain");
        for _ in 0..2 {
            far.read_exact(&mut byte).expect("the chain");
            near.write_all(&byte).expect("the chain");
        }
    }
}

async fn service(wire: &mut Wire, spawn: &Value, spawned: &mut Vec<Duration>, first: &mut Vec<Duration>) {
    let begin = Instant::now();
    let pid = wire.spawn(spawn.clone()).await;
    spawned.push(begin.elapsed());
    wire.stdout_until(pid, "\n").await;
    first.push(begin.elapsed());
    let (.., exit) = wire.run_to_exit(pid).await;
    assert_eq!(exit["code"], 0, "{exit}");
}

fn directly(program: &str, args: &[&str]) -> Duration {
    let begin = Instant::now();
    let (mut child, _) = started(&mut command(program, args));
    let time = begin.elapsed();
    assert!(child.wait().expect("our own child").success());
    time
}

fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Starts it, and waits for its first output.
fn started(command: &mut Command) -> (Child, Vec<u8>) {
    let mut child = command.spawn().expect("the program is there");
    let mut first = [0; 16];
    let read = child.stdout.as_mut().expect("piped above").read(&mut first).expect("its first byte");
    assert!(read > 0, "it ended without output");
    (child, first[..read].to_vec())
}
