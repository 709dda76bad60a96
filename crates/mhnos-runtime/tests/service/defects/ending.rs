//! A kill, a timeout: what is to end does, with all that it started.

use std::time::Duration;

use mhnos_testing::{Wire, eventually};
use serde_json::json;

use crate::{
    requests::{alive, bash, bash_on_terminal, kill, with_options},
    start,
};

/// Longest time for what takes milliseconds.
const SOON: Duration = Duration::from_secs(20);

/// Defect 6.
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

/// Defect 6.
#[tokio::test]
async fn a_timeout_ends_an_interactive_shell() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let pid = wire.spawn(json!({"processType": "shell", "options": {"timeout": 300}})).await;
    let (.., exit) = wire.run_to_exit(pid).await;
    assert_eq!(exit["reason"], "timeout", "{exit}");
    assert!(exit["runtime"].as_u64().is_some_and(|ms| ms >= 300), "{exit}");
}

/// Defects 7 and 8.
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
    assert_eq!(alive(&server, "sleep 4321"), Vec::<String>::new(), "`killed` comes when all have ended");
}

/// Defect 8: every way a descendant has of not being a child. Each writes to a pipe of its own when it is in place, so
/// that the kill comes after.
#[tokio::test]
async fn a_kill_takes_what_hides_from_it() {
    let server = start();
    let ways = [
        ("a new session", "setsid sleep 4322 &"),
        ("a double fork", "( ( exec sleep 4322 ) & ) &"),
        (
            "a daemon",
            "setsid bash -c '(trap \"\" HUP TERM INT; cd /; exec 0<&- 1>&- 2>&-; sleep 4322; :) &' &",
        ),
        (
            "stopped",
            "bash -c 'kill -STOP $$; sleep 4322' & until grep -q '^State:.T' /proc/$!/status; do :; done;",
        ),
        (
            "stopped and deaf",
            "bash -c 'trap \"\" TERM; kill -STOP $$; sleep 4322' & until grep -q '^State:.T' /proc/$!/status; do :; done;",
        ),
        ("many", "for i in $(seq 50); do sleep 4322 & done;"),
        ("forking on", "(trap '' TERM; while :; do sleep 0.01 & done) &"),
    ];
    for terminal in [false, true] {
        for (way, script) in ways {
            let mut wire = Wire::connect(server.address()).await;
            let script = format!("{script} echo re''ady; sleep 4322");
            let pid = wire.spawn(if terminal { bash_on_terminal(&script) } else { bash(&script) }).await;
            wire.stdout_until(pid, "ready").await;
            let killed = kill(&mut wire, pid).await;
            assert_eq!(killed["type"], "killed", "{way}: {killed}");
            assert_eq!(wire.run_to_exit(pid).await.2["reason"], "killed", "{way}");
            assert_eq!(alive(&server, "sleep "), Vec::<String>::new(), "{way}, terminal: {terminal}");
        }
    }
}

#[tokio::test]
async fn a_stopped_program_can_be_killed_and_continued() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let pid = wire.spawn(bash("echo ready; read line; echo $line")).await;
    wire.stdout_until(pid, "ready").await;
    for signal in ["SIGSTOP", "SIGCONT", "SIGSTOP"] {
        let sent = wire.request(json!({"type": "kill", "id": signal, "pid": pid, "signal": signal})).await;
        assert_eq!(sent["type"], "killed", "{sent}");
    }
    let list = wire.request(json!({"type": "list", "id": 1})).await;
    assert_eq!(list["processes"][0]["status"], "running", "{list}");
    assert_eq!(kill(&mut wire, pid).await["type"], "killed");
    assert_eq!(wire.run_to_exit(pid).await.2["signal"], "SIGTERM");
}

#[tokio::test]
async fn a_kill_of_the_leader_spares_its_descendants() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let pid = wire.spawn(bash("sleep 4323 >/dev/null 2>&1 & echo ready; wait")).await;
    wire.stdout_until(pid, "ready").await;
    let request = json!({"type": "kill", "id": 1, "pid": pid, "signal": "SIGTERM", "scope": "leader"});
    assert_eq!(wire.request(request).await["type"], "killed");
    assert_eq!(wire.run_to_exit(pid).await.2["reason"], "killed");
    assert_eq!(alive(&server, "sleep 4323").len(), 1);
    // What is left can still be killed, by the same number.
    let killed = wire.request(json!({"type": "kill", "id": 2, "pid": pid, "signal": "SIGKILL"})).await;
    assert_eq!(killed["type"], "killed", "{killed}");
    eventually(SOON, "the descendant ends", || alive(&server, "sleep 4323").is_empty().then_some(()));
}

/// Defect 7.
#[tokio::test]
async fn a_timeout_ends_what_ignores_signals_and_says_so() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let script = "trap '' TERM; setsid sleep 4324 & while :; do sleep 4324; done";
    let pid = wire.spawn(with_options(bash(script), json!({"timeout": 200}))).await;
    let (.., exit) = wire.run_to_exit(pid).await;
    assert_eq!((&exit["reason"], &exit["signal"]), (&json!("timeout"), &json!("SIGKILL")), "{exit}");
    eventually(SOON, "descendants end", || alive(&server, "sleep 4324").is_empty().then_some(()));
}

/// Defect 18.
#[tokio::test]
async fn a_long_timeout_does_not_fire_at_once() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    for timeout in [json!(1_u64 << 31), json!(5_000_000_000_u64), json!(9_007_199_254_740_991_u64), json!(0)]
    {
        let spawn = with_options(bash("echo alive; read line; exit 9"), json!({"timeout": timeout}));
        let pid = wire.spawn(spawn).await;
        wire.stdout_until(pid, "alive").await;
        wire.send(&json!({"type": "write", "pid": pid, "data": "\n"})).await;
        let (.., exit) = wire.run_to_exit(pid).await;
        assert_eq!((&exit["code"], &exit["reason"]), (&json!(9), &json!("exited")), "{timeout}: {exit}");
    }
}
