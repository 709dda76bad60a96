//! Each defect of the service's predecessor, shown absent here.

use std::fmt::Write;
use std::time::Duration;

use mhnos_testing::{Server, Wire, WireOptions, eventually};
use serde_json::{Value, json};

use crate::{options, start};

fn bash(script: &str) -> Value {
    json!({"processType": "shell", "command": "bash", "args": ["-c", script], "options": {"pty": false}})
}

fn node(script: &str) -> Value {
    json!({"processType": "node", "command": "-e", "args": [script]})
}

fn with_options(mut spawn: Value, options: Value) -> Value {
    let Value::Object(options) = options else { panic!("an object") };
    for (name, value) in options {
        spawn["options"][name] = value;
    }
    spawn
}

async fn kill(wire: &mut Wire, pid: u64) -> Value {
    wire.request(json!({"type": "kill", "id": "kill", "pid": pid, "signal": "SIGTERM"})).await
}

#[tokio::test]
async fn writing_to_a_program_that_does_not_read_or_has_ended_harms_nobody() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let bystander = wire.spawn(bash("echo here; read line; echo got $line")).await;
    wire.stdout_until(bystander, "here").await;
    let closed = wire.spawn(bash("exec 0<&-; echo closed; sleep 0.1")).await;
    wire.stdout_until(closed, "closed").await;
    for _ in 0..50 {
        wire.send(&json!({"type": "write", "pid": closed, "data": "into the void\n"})).await;
    }
    wire.run_to_exit(closed).await;
    let answer = wire.request(json!({"type": "write", "id": 1, "pid": closed, "data": "x"})).await;
    assert_eq!(answer["type"], "error", "{answer}");
    let deaf = wire.spawn(bash("echo deaf; sleep 1000")).await;
    wire.stdout_until(deaf, "deaf").await;
    let big = "x".repeat(1 << 20);
    for _ in 0..10 {
        wire.send(&json!({"type": "write", "pid": deaf, "data": big})).await;
    }
    assert_eq!(kill(&mut wire, deaf).await["type"], "killed");
    wire.send(&json!({"type": "write", "pid": bystander, "data": "news\n"})).await;
    assert_eq!(wire.run_to_exit(bystander).await.0, "got news\n");
}

#[tokio::test]
async fn a_terminals_output_is_complete_twenty_times() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let numbers: String = (1..=30_000).map(|number| format!("{number}\r\n")).collect();
    for round in 0..20 {
        let pid = wire.spawn(json!({"processType": "shell"})).await;
        wire.send(&json!({"type": "write", "pid": pid, "data": "seq 1 30000; exit\r"})).await;
        let (stdout, _, exit) = wire.run_to_exit(pid).await;
        assert!(stdout.contains(&numbers), "round {round}: …{:?} {exit}", tail(&stdout));
    }
}

fn tail(text: &str) -> String {
    let from = text.char_indices().rev().nth(200).map_or(0, |(at, _)| at);
    text[from..].to_owned()
}

#[tokio::test]
async fn three_hundred_short_programs_lose_nothing() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    for round in 0..300 {
        let pid = wire.spawn(bash("echo ok")).await;
        let (stdout, stderr, exit) = wire.run_to_exit(pid).await;
        assert_eq!(
            (stdout.as_str(), stderr.as_str(), &exit["code"]),
            ("ok\n", "", &json!(0)),
            "round {round}"
        );
    }
}

#[tokio::test]
async fn a_program_that_cannot_start_is_an_error_and_takes_no_place() {
    let server = Server::start(options().env("MHNOS_MAX_PROCESSES", "2"));
    let mut wire = Wire::connect(server.address()).await;
    let wrong = [
        with_options(bash("true"), json!({"cwd": "/missing"})),
        json!({"processType": "shell", "command": "/missing/shell"}),
        json!({"processType": "node", "command": "missing.js"}),
        json!({"processType": "python", "command": "missing.py"}),
        json!({"processType": "workerd", "command": "/missing.capnp"}),
    ];
    for _ in 0..3 {
        for spawn in &wrong {
            let mut spawn = spawn.clone();
            spawn["type"] = "spawn".into();
            spawn["id"] = 1.into();
            let answer = wire.request(spawn.clone()).await;
            assert_eq!(answer["type"], "error", "{spawn}: {answer}");
            assert!(
                answer["error"].as_str().is_some_and(|text| text.contains("missing")),
                "{spawn}: {answer}"
            );
        }
    }
    let list = wire.request(json!({"type": "list", "id": 2})).await;
    assert_eq!(list["processes"], json!([]), "{list}");
    let pid = wire.spawn(bash("echo still")).await;
    assert_eq!(wire.run_to_exit(pid).await.0, "still\n");
}

#[tokio::test]
async fn characters_survive_however_they_are_read() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let whole = wire.spawn(node("process.stdout.write('€'.repeat(100000))")).await;
    assert!(wire.run_to_exit(whole).await.0 == "€".repeat(100_000));
    let bytewise =
        "const b = Buffer.from('é€😀'); for (const x of b) require('fs').writeSync(1, Buffer.from([x]))";
    let bytewise = wire.spawn(node(bytewise)).await;
    assert_eq!(wire.run_to_exit(bytewise).await.0, "é€😀");
    let invalid = wire.spawn(node("process.stdout.write(Buffer.from([97, 255, 98, 0xe2, 0x82]))")).await;
    assert_eq!(wire.run_to_exit(invalid).await.0, "a\u{fffd}b\u{fffd}");
}

#[tokio::test]
async fn five_megabytes_of_random_bytes_survive_base64_and_a_write_through_cat() {
    let server = start();
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let script = "const b = require('crypto').randomBytes(5 << 20); require('fs').writeFileSync('random', b); process.stdout.write(b)";
    let pid = wire.spawn(with_options(node(script), json!({"encoding": "base64"}))).await;
    let mut pieces = Vec::new();
    loop {
        let message = wire.next_where(|message| message["pid"] == pid && message["id"].is_null()).await;
        match message["type"].as_str() {
            Some("stdout") => pieces.push(message["data"].as_str().expect("text").to_owned()),
            Some("exit") => break,
            _ => {}
        }
    }
    // Decoded by another program than ours; what it decodes goes through `cat`, and comes back as a hash.
    let cat = wire.spawn(bash("cat > through")).await;
    let decoded = Server::workspace(&server).join("decoded");
    std::fs::write(&decoded, pieces.join("\n")).expect("the workspace is ours to write");
    let check = "const fs = require('fs'); const d = Buffer.concat(fs.readFileSync('decoded', 'utf8').split('\\n').map((l) => Buffer.from(l, 'base64'))); \
                 console.log(d.equals(fs.readFileSync('random')), d.length)";
    let check = wire.spawn(node(check)).await;
    assert_eq!(wire.run_to_exit(check).await.0, "true 5242880\n");
    for piece in &pieces {
        wire.send(&json!({"type": "write", "pid": cat, "data": piece, "encoding": "base64"})).await;
    }
    wire.send(&json!({"type": "closeStdin", "pid": cat})).await;
    wire.run_to_exit(cat).await;
    let workspace = server.workspace();
    let (sent, received) =
        (std::fs::read(workspace.join("random")), std::fs::read(workspace.join("through")));
    assert!(sent.expect("written by node") == received.expect("written by cat"));
}

#[tokio::test]
async fn a_client_that_stalls_costs_bounded_memory() {
    let server = start();
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let pid = wire.spawn(bash("echo begin; head -c 300000000 /dev/zero | tr '\\0' x; echo end")).await;
    wire.stdout_until(pid, "begin").await;
    // Nothing is read here; the program gets its chance through another connection's eyes.
    let mut other = Wire::connect(server.address()).await;
    let own: u64 = eventually(Duration::from_secs(30), "the output to have begun", || {
        Some(resident_kib(&server)).filter(|kib| *kib > 0)
    });
    for id in 0..200 {
        assert_eq!(other.request(json!({"type": "ping", "id": id})).await["type"], "pong");
    }
    let grown = resident_kib(&server).saturating_sub(own);
    assert!(grown < 64 * 1024, "grew by {grown} KiB");
    assert_eq!(kill(&mut other, pid).await["type"], "killed");
}

/// Resident memory of the keeper and its bridge.
fn resident_kib(server: &Server) -> u64 {
    let mut own = vec![server.os_pid()];
    own.extend(
        server.descendants().iter().filter(|process| process.command.contains(" bridge ")).map(|p| p.os_pid),
    );
    let resident = |pid: i32| -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
    };
    own.into_iter().filter_map(resident).sum()
}

#[tokio::test]
async fn killing_an_interactive_shell_ends_it() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let pid = wire.spawn(json!({"processType": "shell"})).await;
    wire.send(&json!({"type": "write", "pid": pid, "data": "echo in''side\r"})).await;
    wire.stdout_until(pid, "inside").await;
    assert_eq!(kill(&mut wire, pid).await["type"], "killed");
    let (.., exit) = wire.run_to_exit(pid).await;
    assert_eq!(exit["reason"], "killed", "{exit}");
}

#[tokio::test]
async fn a_kill_escalates_and_takes_all_descendants() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let script = "trap '' TERM; setsid sleep 4321 & (nohup sleep 4321 >/dev/null 2>&1 &) ; echo ready; while :; do sleep 4321; done";
    let pid = wire.spawn(bash(script)).await;
    wire.stdout_until(pid, "ready").await;
    assert_eq!(kill(&mut wire, pid).await["type"], "killed");
    let (.., exit) = wire.run_to_exit(pid).await;
    assert_eq!((&exit["reason"], &exit["signal"]), (&json!("killed"), &json!("SIGKILL")), "{exit}");
    let sleepers =
        server.descendants().iter().filter(|process| process.command.contains("sleep 4321")).count();
    assert_eq!(sleepers, 0, "`killed` comes when all have ended");
}

#[tokio::test]
async fn a_timeout_ends_what_ignores_signals_and_says_so() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let pid = wire
        .spawn(with_options(bash("trap '' TERM; while :; do sleep 1000; done"), json!({"timeout": 200})))
        .await;
    let (.., exit) = wire.run_to_exit(pid).await;
    assert_eq!(exit["reason"], "timeout", "{exit}");
}

#[tokio::test]
async fn a_long_timeout_does_not_fire_at_once() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let options = json!({"timeout": 5_000_000_000_u64});
    let pid = wire.spawn(with_options(bash("echo alive; read line; exit 9"), options)).await;
    wire.stdout_until(pid, "alive").await;
    wire.send(&json!({"type": "write", "pid": pid, "data": "\n"})).await;
    assert_eq!(wire.run_to_exit(pid).await.2["code"], 9);
}

#[tokio::test]
async fn a_burst_of_spawns_never_passes_the_limit() {
    let server = Server::start(options().env("MHNOS_MAX_PROCESSES", "2"));
    let mut wire = Wire::connect(server.address()).await;
    for id in 0..12 {
        let mut spawn = bash("sleep 1000");
        spawn["type"] = "spawn".into();
        spawn["id"] = id.into();
        wire.send(&spawn).await;
    }
    let mut spawned = 0;
    for id in 0..12 {
        let answer = wire.next_where(|message| message["id"] == id).await;
        spawned += u32::from(answer["type"] == "spawned");
        assert!(
            answer["type"] == "spawned" || answer["error"].as_str().is_some_and(|text| text.contains('2')),
            "{answer}"
        );
    }
    assert_eq!(spawned, 2);
    let list = wire.request(json!({"type": "list", "id": "list"})).await;
    assert_eq!(
        (&list["stats"]["active"], list["processes"].as_array().map(Vec::len)),
        (&json!(2), Some(2)),
        "{list}"
    );
}

#[tokio::test]
async fn an_ended_program_can_be_read_and_listed() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let pid = wire.spawn(bash("echo last words; exit 3")).await;
    wire.run_to_exit(pid).await;
    let mut late = Wire::connect(server.address()).await;
    late.send(&json!({"type": "attach", "id": 1, "pid": pid})).await;
    let (stdout, _, exit) = late.run_to_exit(pid).await;
    assert_eq!((stdout.as_str(), &exit["code"]), ("last words\n", &json!(3)));
    let list = late.request(json!({"type": "list", "id": 2, "all": true})).await;
    assert!(
        list["processes"].as_array().is_some_and(|all| all.iter().any(|one| one["pid"] == pid)),
        "{list}"
    );
}

#[tokio::test]
async fn the_exit_comes_after_all_output_even_if_a_descendant_writes_it() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let pid = wire.spawn(bash("(sleep 0.2; echo from the grandchild) & echo from the child")).await;
    let (stdout, ..) = wire.run_to_exit(pid).await;
    assert_eq!(stdout, "from the child\nfrom the grandchild\n");
}

#[tokio::test]
async fn memory_is_limited_for_every_type_and_capital_letters_are_sizes() {
    let server = Server::start(options().env("MHNOS_MAX_MEMORY", "256M"));
    let mut wire = Wire::connect(server.address()).await;
    let fine = wire.spawn(node("console.log('fine')")).await;
    assert_eq!(wire.run_to_exit(fine).await.0, "fine\n");
    let hungry = json!({"processType": "python", "command": "-c", "args": ["b = []\nwhile True: b.append(bytearray(1 << 20))"]});
    let hungry = wire.spawn(hungry).await;
    let (_, stderr, exit) = wire.run_to_exit(hungry).await;
    let ended_for_memory = exit["reason"] == "memory" || stderr.contains("MemoryError");
    assert!(ended_for_memory, "{exit} {stderr}");
}

#[tokio::test]
async fn answers_come_in_the_order_of_the_requests() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let file = json!([{"path": "/burst.mjs", "kind": "file", "content": b"console.log('pushed')"}]);
    wire.send(&json!({"type": "fsync", "id": "push", "operation": "push", "files": file})).await;
    wire.send(&json!({"type": "spawn", "id": "spawn", "processType": "node", "command": "/burst.mjs"})).await;
    wire.send(&json!({"type": "ping", "id": "ping"})).await;
    let mut order = Vec::new();
    while order.len() < 3 {
        order.push(wire.next_where(|message| !message["id"].is_null()).await);
    }
    let ids: Vec<_> = order.iter().map(|message| message["id"].as_str().unwrap_or_default()).collect();
    assert_eq!(ids, ["push", "spawn", "ping"], "{order:?}");
    let pid = order[1]["pid"].as_u64().expect("spawned");
    assert_eq!(wire.run_to_exit(pid).await.0, "pushed\n");
}

#[tokio::test]
async fn a_push_that_leaves_the_workspace_or_is_no_file_fails_and_says_so() {
    let server = start();
    let outside = server.workspace().with_file_name("workspace-evil");
    std::fs::create_dir(&outside).expect("beside the workspace");
    std::os::unix::fs::symlink(&outside, server.workspace().join("link")).expect("a link inside");
    let mut wire = Wire::connect(server.address()).await;
    for (path, kind, content) in [
        ("../workspace-evil/x", "file", json!([65])),
        ("/link/x", "file", json!([65])),
        ("/a", "symlink", json!([65])),
        ("/b", "file", json!({"0": 65})),
        ("/c", "file", json!({"type": "Buffer", "data": [65]})),
        ("/d", "file", json!([300])),
    ] {
        let files = json!([{"path": path, "kind": kind, "content": content}]);
        let answer =
            wire.request(json!({"type": "fsync", "id": 1, "operation": "push", "files": files})).await;
        let failed = answer["type"] == "error" || answer["results"]["failed"] == 1;
        assert!(failed, "{path} {kind} {content}: {answer}");
    }
    let mut found = String::new();
    for entry in std::fs::read_dir(&outside).expect("it is there") {
        let _ = write!(found, "{:?} ", entry.expect("readable").file_name());
    }
    assert_eq!(found, "", "nothing was written outside");
}

#[tokio::test]
async fn a_signal_is_told_by_name_for_every_type() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let killers = [
        bash("kill -9 $$"),
        node("process.kill(process.pid, 'SIGKILL')"),
        json!({"processType": "shell", "command": "bash", "args": ["-c", "kill -9 $$"]}),
    ];
    for spawn in killers {
        let pid = wire.spawn(spawn).await;
        let (.., exit) = wire.run_to_exit(pid).await;
        assert_eq!((&exit["code"], &exit["signal"]), (&Value::Null, &json!("SIGKILL")), "{exit}");
    }
    let status = wire.request(json!({"type": "status", "id": 1})).await;
    assert_eq!(
        (&status["stats"]["totalSpawned"], &status["stats"]["totalKilled"]),
        (&json!(3), &json!(0)),
        "{status}"
    );
}
