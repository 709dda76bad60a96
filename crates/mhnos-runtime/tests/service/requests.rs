//! The requests that tests make again and again.

use mhnos_testing::{Server, Wire};
use rustix::process::Pid;
use serde_json::{Value, json};

/// A bash script on pipes: nothing between the program and the wire but the service.
pub(crate) fn bash(script: &str) -> Value {
    json!({"processType": "shell", "command": "bash", "args": ["-c", script], "options": {"pty": false}})
}

/// A bash script on a terminal.
pub(crate) fn bash_on_terminal(script: &str) -> Value {
    json!({"processType": "shell", "command": "bash", "args": ["-c", script]})
}

/// JavaScript.
pub(crate) fn node(script: &str) -> Value {
    json!({"processType": "node", "command": "-e", "args": [script]})
}

/// Python.
pub(crate) fn python(script: &str) -> Value {
    json!({"processType": "python", "command": "-c", "args": [script]})
}

/// The same `spawn` with these options besides its own.
pub(crate) fn with_options(mut spawn: Value, options: Value) -> Value {
    let Value::Object(options) = options else { panic!("an object") };
    for (name, value) in options {
        spawn["options"][name] = value;
    }
    spawn
}

/// SIGTERM to the tree; the answer.
pub(crate) async fn kill(wire: &mut Wire, pid: u64) -> Value {
    wire.request(json!({"type": "kill", "id": format!("kill {pid}"), "pid": pid, "signal": "SIGTERM"})).await
}

/// Shows that the service still serves this connection.
pub(crate) async fn assert_serves(wire: &mut Wire) {
    let answer = wire.request(json!({"type": "ping", "id": "still there"})).await;
    assert_eq!(answer["type"], "pong", "{answer}");
    assert!(answer["time"].is_u64(), "{answer}");
}

/// Numbers, each with `end` behind it: text in which anything lost, doubled or moved shows.
pub(crate) fn numbers(range: impl Iterator<Item = u32>, end: &str) -> String {
    range.flat_map(|number| [number.to_string(), end.to_owned()]).collect()
}

/// Command lines of living processes of the service that contain `needle`.
pub(crate) fn alive(server: &Server, needle: &str) -> Vec<String> {
    let mut all = server.descendants();
    all.retain(|process| process.command.contains(needle) && process.state != 'Z');
    all.into_iter().map(|process| process.command).collect()
}

/// Resident memory of the keeper and its bridge.
pub(crate) fn resident_kib(server: &Server) -> u64 {
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

/// The bridge: the keeper's only child that has that word in its command line.
pub(crate) fn bridge(server: &Server) -> Option<Pid> {
    let mut all = server.descendants();
    all.retain(|process| process.command.contains(" bridge ") && process.state != 'Z');
    all.first().and_then(|process| Pid::from_raw(process.os_pid))
}
