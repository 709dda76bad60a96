//! From asking for a program to its first byte.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mhnos_testing::{Wire, tool};
use serde_json::{Value, json};

use crate::{millis, percentile, percentiles, report, start};

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

/// The same short programs through the service and directly, in turn.
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
        for round in 0..ROUNDS {
            // A B B A: neither side always comes first.
            if round % 2 == 0 {
                service(&mut wire, &spawn, &mut spawned, &mut first).await;
                direct.push(directly(&program, &direct_args));
            } else {
                direct.push(directly(&program, &direct_args));
                service(&mut wire, &spawn, &mut spawned, &mut first).await;
            }
        }
        let ratio = percentile(&mut first, 50).as_secs_f64() / percentile(&mut direct, 50).as_secs_f64();
        report(&format!("{what}: to `spawned`"), &percentiles(&mut spawned));
        let floor = millis(percentile(&mut direct, 50));
        let figures = format!("{}; direct p50 {floor}, ratio {ratio:.2}", percentiles(&mut first));
        report(&format!("{what}: to the first byte"), &figures);
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
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program is there");
    let mut stdout = child.stdout.take().expect("piped above");
    let mut first = [0; 16];
    let read = stdout.read(&mut first).expect("its first byte");
    let time = begin.elapsed();
    assert!(read > 0 && child.wait().expect("our own child").success());
    time
}
