//! The bridge is replaced while the service runs: by a new program, by none, by one that does not work; and it dies again and
//! again.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use mhnos_testing::{Options, Scratch, Server, Wire, WireOptions, eventually};
use rustix::process::{Signal, kill_process};
use serde_json::json;

use crate::{
    SERVICE, options,
    requests::{bash, bridge},
    start,
};

/// Longest time for what takes milliseconds.
const SOON: Duration = Duration::from_secs(20);

/// An installed copy of the program, which can be replaced.
struct Installed {
    program: PathBuf,
    _directory: Scratch,
}

impl Installed {
    fn new() -> Self {
        let directory = Scratch::new();
        let installed = Self { program: directory.path().join("mhnos-runtime"), _directory: directory };
        installed.install(copy);
        installed
    }

    /// As package managers do it: beside the old file, then in its place.
    fn install(&self, write: impl FnOnce(&Path)) {
        let new = self.program.with_extension("new");
        write(&new);
        std::fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).expect("ours");
        std::fs::rename(&new, &self.program).expect("ours");
    }

    fn inode(&self) -> u64 {
        std::fs::metadata(&self.program).expect("it is there").ino()
    }
}

/// Written by another process: a descriptor of ours that writes could be inherited, for an instant, by what a test beside
/// this one starts, and a program somebody writes to cannot be executed (ETXTBSY).
fn copy(path: &Path) {
    let copied = Command::new("cp").arg(SERVICE).arg(path).status();
    assert!(copied.is_ok_and(|status| status.success()), "the built program");
}

/// The program that is another version, or none that works.
fn copy_newer(path: &Path) {
    let newer = Path::new(SERVICE).with_file_name("mhnos-newer");
    let copied = Command::new("cp").arg(&newer).arg(path).status();
    assert!(
        copied.is_ok_and(|status| status.success()),
        "cargo build --workspace builds {}",
        newer.display()
    );
}

fn upgrade(server: &Server) -> Output {
    let pid = server.os_pid().to_string();
    Command::new(SERVICE).args(["upgrade", "--pid", &pid]).output().expect("it runs")
}

/// Which file the bridge was started from.
fn program_of_bridge(server: &Server) -> u64 {
    let bridge = bridge(server).expect("there is a bridge").as_raw_nonzero();
    std::fs::metadata(format!("/proc/{bridge}/exe")).expect("a process of ours").ino()
}

/// A client views a program that counts when it is told to.
async fn counter(wire: &mut Wire) -> u64 {
    let script = "i=0; while read x; do i=$((i+1)); echo $i; done";
    let spawn =
        json!({"processType": "shell", "command": "bash", "args": ["-c", script], "options": {"pty": false}});
    wire.spawn(spawn).await
}

async fn count(wire: &mut Wire, pid: u64) {
    wire.send(&json!({"type": "write", "pid": pid, "data": "\n"})).await;
}

#[tokio::test]
async fn an_upgrade_starts_the_new_program_and_clients_go_on_where_they_were() {
    let installed = Installed::new();
    let server = Server::start(Options::new(&installed.program));
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let pid = counter(&mut wire).await;
    count(&mut wire, pid).await;
    wire.stdout_until(pid, "1\n").await;
    let old = installed.inode();
    installed.install(copy);
    let output = upgrade(&server);
    assert!(output.status.success(), "{output:?}");
    let close = wire.closed().await.expect("a close frame");
    assert_eq!(u16::from(close.code), 1012);
    assert_eq!(program_of_bridge(&server), installed.inode());
    assert_ne!(installed.inode(), old);
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let attached = wire.request(json!({"type": "attach", "id": 1, "pid": pid, "after": 2})).await;
    assert_eq!((&attached["seq"], &attached["status"]), (&json!(2), &json!("running")), "{attached}");
    count(&mut wire, pid).await;
    assert_eq!(wire.stdout_until(pid, "2\n").await, "2\n");
}

/// Its connection is not read meanwhile.
#[tokio::test]
async fn a_client_whose_input_waits_for_a_program_is_sent_away_too() {
    let server = start();
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let pid = wire.spawn(bash("head -c 1; while head -c 4096 > /dev/null; do sleep 0.2; done")).await;
    wire.send(&json!({"type": "write", "id": 1, "pid": pid, "data": "x".repeat(5 << 20)})).await;
    wire.stdout_until(pid, "x").await;
    server.signal(Signal::USR2);
    let close = wire.closed().await.expect("a close frame");
    assert_eq!(u16::from(close.code), 1012);
}

#[tokio::test]
async fn a_new_program_that_does_not_work_is_taken_back() {
    let installed = Installed::new();
    let server = Server::start(Options::new(&installed.program));
    let old = program_of_bridge(&server);
    let mut wire = Wire::connect(server.address()).await;
    let pid = counter(&mut wire).await;
    installed.install(|path| std::fs::write(path, "no program at all").expect("ours"));
    let output = upgrade(&server);
    assert!(!output.status.success(), "{output:?}");
    server.logged(SOON, "going back to the old one");
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(program_of_bridge(&server), old);
    let mut wire = Wire::connect(server.address()).await;
    wire.request(json!({"type": "attach", "id": 1, "pid": pid})).await;
    count(&mut wire, pid).await;
    assert_eq!(wire.stdout_until(pid, "1\n").await, "1\n");
}

#[tokio::test]
async fn a_new_program_that_lives_and_says_nothing_is_taken_back() {
    let installed = Installed::new();
    let server = Server::start(Options::new(&installed.program));
    let old = program_of_bridge(&server);
    let mut wire = Wire::connect(server.address()).await;
    let pid = counter(&mut wire).await;
    std::fs::write(installed.program.with_file_name("silence"), "").expect("ours");
    installed.install(copy_newer);
    let output = upgrade(&server);
    assert!(!output.status.success(), "{output:?}");
    server.logged(SOON, "the new program says nothing");
    server.logged(SOON, "going back to the old one");
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(program_of_bridge(&server), old);
    let mut wire = Wire::connect(server.address()).await;
    wire.request(json!({"type": "attach", "id": 1, "pid": pid})).await;
    count(&mut wire, pid).await;
    assert_eq!(wire.stdout_until(pid, "1\n").await, "1\n");
}

#[tokio::test]
async fn a_new_program_that_speaks_another_version_of_the_channel_is_taken_back_and_nothing_is_lost() {
    let installed = Installed::new();
    let server = Server::start(Options::new(&installed.program));
    let old = program_of_bridge(&server);
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let pid = counter(&mut wire).await;
    count(&mut wire, pid).await;
    wire.stdout_until(pid, "1\n").await;
    copy(&installed.program.with_file_name("service"));
    installed.install(copy_newer);
    let output = upgrade(&server);
    assert!(!output.status.success(), "{output:?}");
    server.logged(SOON, "too new or too old for the service that runs; restart the service");
    server.logged(SOON, "going back to the old one");
    assert_eq!(u16::from(wire.closed().await.expect("a close frame").code), 1012);
    assert_eq!(program_of_bridge(&server), old);
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let attached = wire.request(json!({"type": "attach", "id": 1, "pid": pid, "after": 2})).await;
    assert_eq!((&attached["seq"], &attached["status"]), (&json!(2), &json!("running")), "{attached}");
    count(&mut wire, pid).await;
    assert_eq!(wire.stdout_until(pid, "2\n").await, "2\n");
}

#[tokio::test]
async fn an_upgrade_without_a_program_changes_nothing() {
    let installed = Installed::new();
    let server = Server::start(Options::new(&installed.program));
    let mut wire = Wire::connect(server.address()).await;
    let before = bridge(&server);
    std::fs::remove_file(&installed.program).expect("ours");
    server.signal(Signal::USR2);
    server.logged(SOON, "cannot open the new program");
    assert_eq!(wire.request(json!({"type": "ping", "id": 1})).await["type"], "pong");
    assert_eq!(bridge(&server), before);
}

/// Starts a script on pipes, which has taken so many bytes of input.
async fn fed(wire: &mut Wire, script: &str, bytes: usize) -> u64 {
    let spawn =
        json!({"processType": "shell", "command": "bash", "args": ["-c", script], "options": {"pty": false}});
    let pid = wire.spawn(spawn).await;
    let data = "x".repeat(bytes);
    let written = wire.request(json!({"type": "write", "id": 1, "pid": pid, "data": data})).await;
    assert_eq!(written["type"], "written", "{written}");
    pid
}

#[tokio::test]
async fn input_that_was_taken_survives_an_upgrade() {
    let server = start();
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    // Reads nothing until its input does not fit the pipe any more.
    let pid = fed(&mut wire, "sleep 0.3; exec wc -c", 500_000).await;
    wire.send(&json!({"type": "closeStdin", "pid": pid})).await;
    assert_eq!(wire.request(json!({"type": "ping", "id": 2})).await["type"], "pong");
    assert!(upgrade(&server).status.success());
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    wire.send(&json!({"type": "attach", "id": 3, "pid": pid})).await;
    assert_eq!(wire.run_to_exit(pid).await.0, "500000\n");
}

/// Its pipe takes it all: the old bridge does not wait for it, and the end of input is not lost either.
#[tokio::test]
async fn input_that_nobody_reads_survives_an_upgrade() {
    let server = start();
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let pid = fed(&mut wire, "until [ -e go ]; do sleep 0.05; done; exec wc -c", 900_000).await;
    let closed = wire.request(json!({"type": "closeStdin", "id": 2, "pid": pid})).await;
    assert_eq!(closed["type"], "stdinClosed", "{closed}");
    assert!(upgrade(&server).status.success());
    server.write("go", "");
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    wire.send(&json!({"type": "attach", "id": 3, "pid": pid})).await;
    assert_eq!(wire.run_to_exit(pid).await.0, "900000\n");
}

#[tokio::test]
async fn bridges_that_die_again_and_again_are_started_ever_later_and_processes_stay() {
    let server = Server::start(options().env("MHNOS_LOG_LEVEL", "info"));
    let mut wire = Wire::connect(server.address()).await;
    let pid = counter(&mut wire).await;
    // More than a service that never had a bridge would be given.
    for _ in 0..7 {
        let one = eventually(SOON, "a bridge", || bridge(&server));
        kill_process(one, Signal::KILL).expect("it is ours");
        eventually(SOON, "its end", || (bridge(&server) != Some(one)).then_some(()));
    }
    eventually(SOON, "the last of them", || bridge(&server));
    let log = server.log();
    for pause in ["0ns", "20ms", "40ms", "320ms", "640ms"] {
        assert!(log.contains(&format!("\"restart_in\":\"{pause}\"")), "{pause}: {log}");
    }
    let mut wire = Wire::connect(server.address()).await;
    wire.request(json!({"type": "attach", "id": 1, "pid": pid})).await;
    count(&mut wire, pid).await;
    assert_eq!(wire.stdout_until(pid, "1\n").await, "1\n");
}
