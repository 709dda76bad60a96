//! The service's control groups: none stays that nobody needs, and what happens above them is no program's fault.

use std::{
    fs,
    path::{Path, PathBuf},
};

use mhnos_testing::{Server, Wire};
use serde_json::json;

use crate::{options, requests::bash};

/// How many there are, in the hierarchy that has most.
fn groups(server: &Server) -> usize {
    server.control_groups().iter().map(|dir| below(dir)).max().expect("control groups")
}

fn below(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.map(|entry| 1 + below(&entry.path())).sum()
}

/// Who cannot become a program is in its group still when that is told.
#[tokio::test]
async fn starts_that_fail_leave_no_control_groups() {
    const ROUND: usize = 60;
    let server = Server::start(options().on("root"));
    let mut wire = Wire::connect(server.address()).await;
    let mut most = Vec::new();
    for _ in 0..2 {
        for id in 0..ROUND {
            let spawn =
                json!({"type": "spawn", "id": id, "processType": "shell", "command": "/missing/shell"});
            let answer = wire.request(spawn).await;
            assert_eq!(answer["type"], "error", "{answer}");
        }
        let pid = wire.spawn(bash("echo starts")).await;
        assert_eq!(wire.run_to_exit(pid).await.0, "starts\n");
        most.push(groups(&server));
    }
    assert!(most[1] < most[0] + ROUND / 6, "{most:?} groups, {ROUND} failed starts apart");
}

/// A limit above the service's groups, as that of a unit or a container is.
fn limit_all(server: &Server, bytes: u64) {
    let limits = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max"];
    let files = |dir: &PathBuf| limits.map(|name| dir.join(name));
    let written =
        server.control_groups().iter().flat_map(files).filter(|file| file.exists()).fold(0, |n, file| {
            fs::write(&file, bytes.to_string()).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            n + 1
        });
    assert!(written > 0, "the control: there is a limit");
}

/// In version 1 the kernel tells all groups below the one that is out of memory.
#[tokio::test]
async fn a_limit_above_all_programs_ends_one_of_them_and_no_other() {
    let server = Server::start(options().on("root"));
    let mut wire = Wire::connect(server.address()).await;
    let mut neighbours = Vec::new();
    for _ in 0..3 {
        let pid = wire.spawn(bash("echo up; while read line; do echo $line; done")).await;
        wire.stdout_until(pid, "up").await;
        neighbours.push(pid);
    }
    limit_all(&server, 192 << 20);
    for round in 0..2 {
        // It is ended as a whole, as by a limit of its own.
        let hungry =
            "python3 -c 'kept = []\nwhile True: kept.append(bytearray(b\"x\" * (1 << 20)))'; sleep 1000";
        let pid = wire.spawn(bash(hungry)).await;
        let (.., exit) = wire.run_to_exit(pid).await;
        assert_eq!((&exit["signal"], &exit["reason"]), (&json!("SIGKILL"), &json!("memory")), "{exit}");
        for pid in &neighbours {
            let word = format!("round {round} of {pid}");
            wire.request(json!({"type": "write", "id": word, "pid": pid, "data": format!("{word}\n")})).await;
            wire.stdout_until(*pid, &word).await;
        }
    }
    wire.send(&json!({"type": "closeStdin", "pid": neighbours[0]})).await;
    let exit = wire.next_where(|message| message["type"] == "exit" && message["pid"] == neighbours[0]).await;
    assert_eq!((&exit["code"], &exit["reason"]), (&json!(0), &json!("exited")), "{exit}");
}
