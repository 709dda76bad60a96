//! A workspace that is full, by its quota or by its disk: clear errors, nothing corrupted, and service goes on.

use std::time::{Duration, Instant};

use mhnos_testing::{Scratch, Server, Wire, WireOptions, eventually};
use rustix::{
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::Signal,
};
use serde_json::{Value, json};

use crate::{
    bridge_killed::kill_bridge,
    options,
    requests::{bash, bridge},
};

/// For the next count, on a busy machine.
const COUNTED: Duration = Duration::from_mins(1);

async fn push(wire: &mut Wire, path: &str, bytes: usize) -> Value {
    let files = json!([{"path": path, "kind": "file", "content": "x".repeat(bytes)}]);
    let push = json!({"type": "fsync", "id": "push", "operation": "push", "files": files});
    wire.request(push).await["results"].take()
}

fn failure(answer: &Value) -> &str {
    assert_eq!(answer["failed"], 1, "{answer}");
    answer["errors"][0]["error"].as_str().unwrap_or_else(|| panic!("no error: {answer}"))
}

#[tokio::test]
async fn pushes_beyond_the_quota_are_refused_by_name_and_the_old_file_stays() {
    let server = Server::start(options().env("MHNOS_WORKSPACE_QUOTA", "1m"));
    let mut wire = Wire::connect(server.address()).await;
    assert_eq!(push(&mut wire, "kept", 500 << 10).await["synced"], 1);
    let answer = push(&mut wire, "kept", 900 << 10).await;
    let text = failure(&answer);
    assert!(text.contains("quota of 1048576 (MHNOS_WORKSPACE_QUOTA)") && text.contains("kept"), "{text}");
    let size = std::fs::metadata(server.workspace().join("kept")).expect("the old file").len();
    assert_eq!(size, 500 << 10);
    // What fits still goes in.
    assert_eq!(push(&mut wire, "small", 1000).await["synced"], 1);
}

#[tokio::test]
async fn programs_that_fill_the_workspace_are_stopped_and_cleaning_up_is_possible() {
    let server = Server::start(options().env("MHNOS_WORKSPACE_QUOTA", "4m"));
    let mut wire = Wire::connect(server.address()).await;
    let script = "echo up; n=0; while :; do n=$((n+1)); head -c 4000000 /dev/zero > fill-$n; sleep 0.2; done";
    let pid = wire.spawn(bash(script)).await;
    let (.., exit) = wire.run_to_exit(pid).await;
    assert_eq!(exit["reason"], "quota", "{exit}");
    // Whoever cleans up is left alone, and then there is room again.
    let pid = wire.spawn(bash("rm fill-*; ls")).await;
    let (.., exit) = wire.run_to_exit(pid).await;
    assert_eq!((&exit["reason"], &exit["code"]), (&json!("exited"), &json!(0)), "{exit}");
    let begin = Instant::now();
    while push(&mut wire, "after", 1000).await["synced"] != 1 {
        assert!(begin.elapsed() < COUNTED, "what was removed is counted still");
    }
}

/// Not by a grace period, nor by a directory that the service cannot read.
#[tokio::test]
async fn no_program_keeps_on_beyond_the_quota() {
    for host in ["root", "container", "one-user"] {
        for trick in ["trap '' TERM HUP INT", "chmod 300 ."] {
            let settings = options().env("MHNOS_WORKSPACE_QUOTA", "4m").env("MHNOS_KILL_GRACE", "1h");
            let server = Server::start(settings.on(host));
            let mut wire = Wire::connect(server.address()).await;
            let fill = "n=0; while :; do n=$((n+1)); head -c 4000000 /dev/zero > fill-$n; sleep 0.2; done";
            let pid = wire.spawn(bash(&format!("{trick}; {fill}"))).await;
            let (.., exit) = wire.run_to_exit(pid).await;
            assert_eq!(exit["reason"], "quota", "{host}, {trick}: {exit}");
        }
    }
}

/// Its programs have their grace to end in, and no room beyond the quota.
#[tokio::test]
async fn a_program_that_fills_the_workspace_during_a_drain_is_ended() {
    let settings = options().env("MHNOS_WORKSPACE_QUOTA", "4m").env("MHNOS_KILL_GRACE", "1h");
    let mut server = Server::start(settings);
    let mut wire = Wire::connect(server.address()).await;
    let fill = "n=0; while :; do n=$((n+1)); head -c 4000000 /dev/zero > fill-$n; sleep 0.2; done";
    let pid = wire.spawn(bash(&format!("trap '{fill}' TERM; echo up; while :; do sleep 0.1; done"))).await;
    wire.stdout_until(pid, "up").await;
    server.signal(Signal::TERM);
    assert!(server.wait(COUNTED).success());
}

#[tokio::test]
async fn what_grows_while_a_bridge_is_replaced_is_not_forgiven() {
    let server = Server::start(options().env("MHNOS_WORKSPACE_QUOTA", "4m"));
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    // The first count is over, and what it says is kept, when another has been made.
    server.write("large", vec![7; 4 << 20]);
    while push(&mut wire, "small", 1000).await["synced"] == 1 {}
    std::fs::remove_file(server.workspace().join("large")).expect("there");
    while push(&mut wire, "small", 1000).await["synced"] != 1 {}
    let fill = "echo up; until [ -e go ]; do sleep 0.1; done; head -c 20000000 /dev/zero > fill; touch done; sleep 1000";
    let pid = wire.spawn(bash(fill)).await;
    wire.stdout_until(pid, "up").await;
    let bridge = bridge(&server).expect("a bridge");
    rustix::process::kill_process(bridge, Signal::STOP).expect("stop the bridge");
    server.write("go", "");
    let done = server.workspace().join("done");
    eventually(COUNTED, "the workspace is full", || done.exists().then_some(()));
    kill_bridge(&server);
    wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    wire.send(&json!({"type": "attach", "id": "again", "pid": pid})).await;
    let end = tokio::time::timeout(COUNTED, wire.run_to_exit(pid)).await;
    assert_eq!(end.expect("it is ended").2["reason"], "quota");
}

/// A file system of a few megabytes.
struct SmallDisk(Scratch);

impl SmallDisk {
    fn mount() -> Self {
        let scratch = Scratch::new();
        mount("tmpfs", scratch.path(), "tmpfs", MountFlags::empty(), Some(c"size=2m,mode=777"))
            .expect("root is needed to mount a small disk");
        Self(scratch)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_corrupts_nothing() {
    let disk = SmallDisk::mount();
    let server = Server::start(options().workspace(disk.0.path()));
    let mut wire = Wire::connect(server.address()).await;
    assert_eq!(push(&mut wire, "kept", 500 << 10).await["synced"], 1);
    // A program finds it full and lives on.
    let pid = wire.spawn(bash("head -c 10000000 /dev/zero > fill; echo \"status $?\"")).await;
    let (stdout, stderr, exit) = wire.run_to_exit(pid).await;
    assert!(stdout.contains("status 1") && stderr.contains("No space left"), "{stdout}{stderr}{exit}");
    let answer = push(&mut wire, "kept", 600 << 10).await;
    assert!(failure(&answer).contains("No space left on device"), "{answer}");
    let answer = push(&mut wire, "new", 600 << 10).await;
    assert!(failure(&answer).contains("No space left on device"), "{answer}");
    let names: Vec<_> = std::fs::read_dir(disk.0.path()).expect("list").flatten().collect();
    assert_eq!(names.len(), 2, "nothing half written is left: {names:?}");
    let content = std::fs::read(disk.0.path().join("kept")).expect("the old file");
    assert!(content.len() == 500 << 10 && content.iter().all(|byte| *byte == b'x'));
    // It serves, and with room again pushes succeed.
    let pid = wire.spawn(bash("rm fill; echo freed")).await;
    assert_eq!(wire.run_to_exit(pid).await.0, "freed\n");
    assert_eq!(push(&mut wire, "kept", 600 << 10).await["synced"], 1);
}

#[tokio::test]
async fn a_full_disk_keeps_no_service_from_starting() {
    let disk = SmallDisk::mount();
    std::fs::write(disk.0.path().join("fill"), vec![0; 4 << 20]).expect_err("a full disk");
    let server = Server::start(options().workspace(disk.0.path()));
    let mut wire = Wire::connect(server.address()).await;
    let pid = wire.spawn(bash("ls -A; rm fill; echo text > file; cat file")).await;
    assert_eq!(wire.run_to_exit(pid).await.0, "fill\ntext\n");
}
