//! A program that leaves ten thousand orphans, as one does that starts daemons and looks after none: each is reaped, the
//! service answers meanwhile, and its neighbours work.

use std::{process::Command, time::Duration};

use mhnos_testing::{Scratch, Server, Wire, eventually_async};
use serde_json::json;

use crate::{
    abuse::strict_hosts,
    options,
    requests::{assert_serves, bash},
};

/// For what takes milliseconds on a machine with nothing else to do.
const SOON: Duration = Duration::from_mins(1);

/// Each child has a child, and ends; then all stays as it is until somebody says more.
const PROGRAM: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int argc, char **argv) {
    for (int made = 0; made < atoi(argv[1]); made++) {
        int status;
        pid_t child = fork();
        if (child == 0) _exit(fork() < 0);
        if (child < 0 || waitpid(child, &status, 0) < 0 || status != 0) return 1;
        if (made % 1000 == 0) { puts("at it"); fflush(stdout); }
    }
    puts("made");
    fflush(stdout);
    getchar();
    return 0;
}
"#;

fn built() -> Vec<u8> {
    let scratch = Scratch::new();
    let (source, program) = (scratch.path().join("orphans.c"), scratch.path().join("orphans"));
    std::fs::write(&source, PROGRAM).expect("write");
    let compiled = Command::new("gcc").arg("-o").arg(&program).arg(&source).status().expect("gcc");
    assert!(compiled.success());
    std::fs::read(&program).expect("what was made")
}

#[tokio::test]
async fn ten_thousand_orphans_are_reaped_and_nobody_notices() {
    let program = built();
    for host in strict_hosts().chain(["none"]) {
        let mode = if host == "none" { "none" } else { "strict" };
        // Those that are not reaped yet count: here it is about their number, not about the limit.
        let server =
            Server::start(options().on(host).env("MHNOS_SANDBOX", mode).env("MHNOS_MAX_PIDS", "20000"));
        server.write("orphans", &program);
        let mut wire = Wire::connect(server.address()).await;
        let neighbour = wire.spawn(bash("while read line; do echo got $line; done")).await;
        let pid = wire.spawn(bash("exec ./orphans 10000")).await;
        wire.stdout_until(pid, "at it\n").await;
        wire.send(&json!({"type": "write", "pid": neighbour, "data": "one\n"})).await;
        wire.stdout_until(neighbour, "got one\n").await;
        let next = wire.spawn(bash("exit 3")).await;
        assert_eq!(wire.run_to_exit(next).await.2["code"], 3, "{host}");
        wire.stdout_until(pid, "made\n").await;
        eventually_async(SOON, "all are reaped", async || {
            let zombies = server.descendants().into_iter().filter(|process| process.state == 'Z').count();
            (zombies == 0).then_some(())
        })
        .await;
        wire.send(&json!({"type": "write", "pid": pid, "data": "\n"})).await;
        let (_, stderr, exit) = wire.run_to_exit(pid).await;
        assert_eq!(exit["code"], 0, "{host}: {exit}\n{stderr}");
        wire.send(&json!({"type": "write", "pid": neighbour, "data": "two\n"})).await;
        wire.stdout_until(neighbour, "got two\n").await;
        assert_serves(&mut wire).await;
    }
}
