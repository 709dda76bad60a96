//! The audit log says who did what and no more, and nothing that becomes of it touches the service.

use std::{fs, path::Path, time::Duration};

use mhnos_testing::{Exposition, Scratch, Server, Wire, WireOptions, eventually, http_get};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    bridge_killed::kill_bridge,
    options,
    requests::{assert_serves, bash, kill, with_options},
};

/// Longest time for what takes milliseconds.
const SOON: Duration = Duration::from_secs(20);

/// What must be in no line.
const SECRET: &str = "hunter2";

fn start(log: &Path) -> Server {
    Server::start(options().env("MHNOS_AUDIT_LOG", log.to_str().expect("text")))
}

fn lines(log: &Path) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect()
}

/// All lines, as soon as one of them is of this event.
#[track_caller]
fn lines_with(log: &Path, event: &str) -> Vec<Value> {
    eventually(SOON, event, || {
        let lines = lines(log);
        lines.iter().any(|line| line["event"] == event).then_some(lines)
    })
}

/// The fields of a line that are the same in each run.
fn told(line: &Value) -> Value {
    let mut line = line.clone();
    let fields = line.as_object_mut().expect("an object");
    for varies in ["time", "peer", "connection", "durationMs", "runtimeMs", "tier"] {
        fields.remove(varies);
    }
    line
}

/// A line's event and the names of its fields.
fn keys(line: &Value) -> (&Value, Vec<&String>) {
    (&line["event"], line.as_object().expect("an object").keys().collect())
}

/// The lines shown in docs/audit.md, which are those of the session below.
fn documented() -> Vec<Value> {
    let text = include_str!("../../../../docs/audit.md");
    let block = text.split("```json audit\n").nth(1).and_then(|rest| rest.split("```").next());
    block.expect("a block").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

async fn leave(mut wire: Wire) {
    wire.send_message(Message::Close(None)).await.expect("open");
    wire.closed().await;
}

#[tokio::test]
async fn who_did_what_is_written_down_and_no_secret() {
    let scratch = Scratch::new();
    let log = scratch.path().join("audit.jsonl");
    let server = start(&log);
    assert_eq!(
        http_get(server.address(), "/health", &["Origin: https://evil.example"]).expect("answered").status,
        403
    );
    let mut wire =
        Wire::connect_as(server.address(), WireOptions::modern().header("Origin", "http://localhost:8080"))
            .await;
    let script = format!("read line; echo {SECRET}; exec sleep 60");
    let spawn = with_options(bash(&script), json!({"env": {"PASSWORD": SECRET}, "name": "work"}));
    let pid = wire.spawn(spawn).await;
    for id in 1..=2 {
        wire.request(json!({"type": "write", "id": id, "pid": pid, "data": format!("{SECRET}\n")})).await;
    }
    wire.stdout_until(pid, SECRET).await;
    wire.request(json!({"type": "attach", "id": 3, "pid": pid})).await;
    assert_eq!(kill(&mut wire, pid).await["type"], "killed");
    let push = json!({"type": "fsync", "id": 4, "operation": "push", "files": [
        {"path": "a", "kind": "file", "content": SECRET}, {"path": "..", "kind": "directory"}]});
    wire.request(push).await;
    wire.request(json!({"type": "fsync", "id": 5, "operation": "pull"})).await;
    wire.request(
        json!({"type": "spawn", "id": 6, "processType": "node", "command": "none.js", "args": [SECRET]}),
    )
    .await;
    leave(wire).await;
    let lines = lines_with(&log, "disconnect");
    let origin = "http://localhost:8080";
    let expected = [
        json!({"event": "start", "version": env!("CARGO_PKG_VERSION"), "bridge": 1, "mode": "strict"}),
        json!({"event": "refuse", "cause": "foreign_origin", "why": "Pages of https://evil.example may not connect to this service."}),
        json!({"event": "connect", "client": "text", "origin": origin}),
        json!({"event": "spawn", "pid": pid, "type": "shell", "command": "bash", "args": 2, "name": "work", "origin": origin}),
        json!({"event": "write", "pid": pid, "origin": origin}),
        json!({"event": "attach", "pid": pid, "origin": origin}),
        json!({"event": "kill", "pid": pid, "signal": "SIGTERM", "scope": "tree", "origin": origin}),
        json!({"event": "exit", "pid": pid, "type": "shell", "signal": "SIGTERM", "reason": "killed"}),
        json!({"event": "push", "files": 1, "failed": 1, "bytes": 7, "origin": origin}),
        json!({"event": "pull", "origin": origin}),
        json!({"event": "spawnFailed", "type": "node", "command": "none.js", "args": 1, "code": "PATH_NOT_FOUND", "origin": origin}),
        json!({"event": "disconnect", "reason": "left", "origin": origin}),
    ];
    assert_eq!(lines.iter().map(told).collect::<Vec<_>>(), expected);
    assert!(
        lines
            .iter()
            .all(|line| line["time"].as_str().is_some_and(|time| time.len() == 24 && time.ends_with('Z')))
    );
    assert_eq!(lines.iter().map(keys).collect::<Vec<_>>(), documented().iter().map(keys).collect::<Vec<_>>());
    assert_eq!(lines[3]["connection"], "1.1");
    assert!(!fs::read_to_string(&log).expect("read").contains(SECRET));
}

#[tokio::test]
async fn it_is_off_unless_asked_for_and_goes_to_stdout_if_asked() {
    let mut silent = Server::start(options());
    silent.stop();
    assert!(!silent.stdout().contains("\"event\""));
    let mut loud = Server::start(options().env("MHNOS_AUDIT_LOG", "stdout"));
    leave(Wire::connect(loud.address()).await).await;
    loud.stop();
    let said =
        eventually(SOON, "the last line", || Some(loud.stdout()).filter(|said| said.contains("\"stop\"")));
    let events: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let events: Vec<&str> = events.iter().filter_map(|line: &Value| line["event"].as_str()).collect();
    assert_eq!(events, ["start", "connect", "disconnect", "stop"], "{said}");
}

#[tokio::test]
async fn a_renamed_log_is_followed_and_a_new_bridge_goes_on_in_the_same() {
    let scratch = Scratch::new();
    let (log, old) = (scratch.path().join("audit.jsonl"), scratch.path().join("audit.1"));
    let server = start(&log);
    let mut wire = Wire::connect(server.address()).await;
    let pid = wire.spawn(bash("read line; exit 3")).await;
    lines_with(&log, "spawn");
    kill_bridge(&server);
    let mut wire = Wire::connect(server.address()).await;
    let connects = lines_with(&log, "connect");
    assert_eq!(connects.iter().filter(|line| line["event"] == "start").count(), 2, "{connects:?}");
    // The account of the service may not make files here: what rotates must.
    fs::rename(&log, &old).expect("rename");
    fs::write(&log, "").expect("a new file");
    let meta = fs::metadata(&old).expect("there");
    std::os::unix::fs::chown(&log, Some(std::os::unix::fs::MetadataExt::uid(&meta)), None).expect("chown");
    wire.request(json!({"type": "attach", "id": 1, "pid": pid})).await;
    wire.send(&json!({"type": "closeStdin", "pid": pid})).await;
    wire.next_where(|message| message["type"] == "exit").await;
    let after = lines_with(&log, "exit");
    let exit = after.iter().find(|line| line["event"] == "exit").expect("just seen");
    assert_eq!((&exit["code"], &exit["pid"], exit.get("earlier")), (&json!(3), &json!(pid), None));
    assert!(lines(&old).iter().all(|line| line["event"] != "exit"));
}

/// Each of these takes nothing. The service answers as ever, and tells how many lines are missing.
#[tokio::test]
async fn what_cannot_be_written_stops_nothing_and_is_counted() {
    let scratch = Scratch::new();
    let (full, fifo) = (scratch.path().join("full"), scratch.path().join("fifo"));
    std::os::unix::fs::symlink("/dev/full", &full).expect("link");
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).expect("a FIFO");
    for log in [&full, &fifo] {
        let mut server = start(log);
        // More than a pipe holds.
        for _ in 0..1000 {
            assert_eq!(
                http_get(server.address(), "/", &["Host: evil.example"]).expect("answered").status,
                403
            );
        }
        assert_serves(&mut Wire::connect(server.address()).await).await;
        let lost = eventually(SOON, "lost lines", || {
            let lost = Exposition::of(server.address()).count("mhnos_audit_lost_total");
            (lost > 0).then_some(lost)
        });
        assert!(lost >= 1, "{}", log.display());
        server.logged(SOON, "the audit log cannot be written");
        assert!(server.stop().success(), "{}", log.display());
    }
}

/// A file system without room: lines are lost, and when there is room again the log says how many.
#[tokio::test]
async fn when_a_full_disk_has_room_again_the_log_says_what_is_missing() {
    let scratch = Scratch::new();
    let disk = scratch.path().join("disk");
    fs::create_dir(&disk).expect("a directory");
    let _mounted = Mounted::tmpfs(&disk, "size=64k");
    let log = disk.join("audit.jsonl");
    let server = start(&log);
    let ballast = disk.join("ballast");
    let refused = || {
        assert_eq!(http_get(server.address(), "/", &["Host: evil.example"]).expect("answered").status, 403);
    };
    refused();
    lines_with(&log, "refuse");
    let _ = fs::write(&ballast, vec![b'x'; 64 << 10]);
    eventually(SOON, "lost lines", || {
        refused();
        (Exposition::of(server.address()).count("mhnos_audit_lost_total") > 5).then_some(())
    });
    assert_serves(&mut Wire::connect(server.address()).await).await;
    fs::remove_file(&ballast).expect("remove");
    refused();
    let torn = eventually(SOON, "the mark", || {
        let text = fs::read_to_string(&log).expect("read");
        text.contains("\"event\":\"lost\"").then_some(text)
    });
    let (whole, broken): (Vec<&str>, Vec<&str>) =
        torn.lines().partition(|line| serde_json::from_str::<Value>(line).is_ok());
    assert!(broken.len() <= 1, "at most the line that met the end of the disk: {broken:?}");
    let lost = whole.iter().find(|line| line.contains("\"event\":\"lost\"")).expect("just seen");
    assert!(serde_json::from_str::<Value>(lost).expect("JSON")["lines"].as_u64() > Some(5), "{lost}");
    server.logged(SOON, "the audit log can be written again");
}

#[test]
fn a_log_that_programs_could_change_or_that_cannot_be_made_stops_the_start() {
    let scratch = Scratch::new();
    let check = |path: &str, says: &str| {
        let failure = Server::try_start(options().workspace(scratch.path()).env("MHNOS_AUDIT_LOG", path));
        let failure = failure.expect_err("it must not start");
        assert!(failure.stderr.contains(says), "{}", failure.stderr);
    };
    check(scratch.path().join("audit").to_str().expect("text"), "would be in the workspace");
    check("/no/such/directory/audit", "/no/such/directory/audit");
    check("relative", "MHNOS_AUDIT_LOG");
}

/// A file system that is there until it is dropped.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn tmpfs(at: &'a Path, size: &str) -> Self {
        let options = ["-t", "tmpfs", "-o", size, "tmpfs"];
        let mounted = std::process::Command::new("mount").args(options).arg(at).status().expect("mount runs");
        assert!(mounted.success(), "the tests run as root");
        Self(at)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

/// A program that asks its way out for an address of this machine.
#[tokio::test]
async fn what_a_program_may_not_reach_is_counted_and_written_down() {
    let scratch = Scratch::new();
    let log = scratch.path().join("audit.jsonl");
    let server = start(&log);
    let mut wire = Wire::connect(server.address()).await;
    let script = "exec 3<>/dev/tcp/10.0.0.1/80; cat <&3";
    let spawn = with_options(bash(script), json!({"isolation": "private"}));
    let pid = wire.spawn(spawn).await;
    wire.run_to_exit(pid).await;
    let lines = lines_with(&log, "egressRefused");
    let refused = lines.iter().find(|line| line["event"] == "egressRefused").expect("just seen");
    assert_eq!((&refused["target"], &refused["pid"]), (&json!("10.0.0.1:80"), &json!(pid)), "{refused}");
    assert_eq!(Exposition::of(server.address()).count("mhnos_egress_refusals_total{via=\"connection\"}"), 1);
}

#[tokio::test]
async fn tokens_appear_by_name_only() {
    let scratch = Scratch::new();
    let (log, tokens) = (scratch.path().join("audit.jsonl"), scratch.path().join("tokens"));
    let (control, view) = ("control-token-of-this-test", "view-token-of-this-test");
    fs::write(&tokens, format!("alice control {control}\nscreen view {view}\n")).expect("a file");
    let tokens = tokens.to_str().expect("text");
    let options = options().env("MHNOS_AUDIT_LOG", log.to_str().expect("text"));
    let server = Server::start(options.env("MHNOS_AUTH_TOKEN_FILE", tokens));
    let bearer = |token: &str| WireOptions::modern().header("Authorization", &format!("Bearer {token}"));
    assert!(Wire::open(server.address(), bearer("wrong-token-of-this-test")).await.is_err());
    let mut wire = Wire::connect_as(server.address(), bearer(view)).await;
    let refused = wire.request(json!({"type": "spawn", "id": 1, "processType": "shell"})).await;
    assert_eq!(refused["code"], "NOT_ALLOWED", "{refused}");
    let mut alice = Wire::connect_as(server.address(), bearer(control)).await;
    let pid = alice.spawn(bash("exit 0")).await;
    alice.run_to_exit(pid).await;
    let lines = lines_with(&log, "exit");
    let of = |event: &str| lines.iter().find(|line| line["event"] == event).cloned().unwrap_or_default();
    assert_eq!(of("refuse")["cause"], "no_token");
    assert_eq!((&of("denied")["principal"], &of("denied")["request"]), (&json!("screen"), &json!("spawn")));
    assert_eq!(of("spawn")["principal"], "alice");
    let text = fs::read_to_string(&log).expect("read");
    assert!(!text.contains("of-this-test"), "{text}");
}
