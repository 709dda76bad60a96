//! Starting and stopping, as the machine's owner sees it.

use std::time::Duration;

use mhnos_testing::{Options, Server, Wire, http_get};
use rustix::process::{Signal, kill_process};
use serde_json::json;

use crate::{
    options,
    requests::{alive, bash, bash_on_terminal, bridge},
    start,
};

/// A program that ends on nothing but SIGKILL, with a descendant in a session of its own that does the same.
const STUBBORN: &str = "trap '' TERM INT HUP; setsid bash -c \"trap '' TERM INT HUP; sleep 1000; sleep 1000\" & \
                        echo ready; sleep 1000; sleep 1000";

/// Longest time for what takes milliseconds, or the grace period.
const SOON: Duration = Duration::from_secs(20);

/// Longer than any test: a stop that waits for it waits for ever.
const LONG_GRACE: &str = "10m";

async fn spawn_stubborn(wire: &mut Wire) -> u64 {
    let pid = wire.spawn(bash_on_terminal(STUBBORN)).await;
    wire.stdout_until(pid, "ready").await;
    pid
}

#[tokio::test]
async fn a_drain_ends_programs_tells_clients_and_leaves_nothing() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = start();
        let mut wire = Wire::connect(server.address()).await;
        let stubborn = spawn_stubborn(&mut wire).await;
        let tidy = wire
            .spawn(bash("trap 'echo tidied; exit 4' TERM; echo ready; while :; do sleep 0.01; done"))
            .await;
        wire.stdout_until(tidy, "ready").await;
        let mut other = Wire::connect(server.address()).await;
        other.request(json!({"type": "attach", "id": 1, "pid": stubborn})).await;
        server.signal(signal);
        let (stdout, _, exit) = wire.run_to_exit(tidy).await;
        assert_eq!(stdout, "tidied\n");
        assert_eq!((&exit["reason"], &exit["code"]), (&json!("shutdown"), &json!(4)), "{exit}");
        for wire in [&mut wire, &mut other] {
            let exit =
                wire.next_where(|message| message["type"] == "exit" && message["pid"] == stubborn).await;
            assert_eq!((&exit["reason"], &exit["signal"]), (&json!("shutdown"), &json!("SIGKILL")), "{exit}");
            let close = wire.closed().await.expect("a close frame");
            assert_eq!(u16::from(close.code), 1001);
        }
        assert_eq!(server.wait(SOON).code(), Some(0));
        server.assert_nothing_left();
    }
}

/// The next one goes on with it: programs have their grace period.
#[tokio::test]
async fn a_bridge_that_dies_during_a_drain_takes_nobodys_grace() {
    let mut server = Server::start(options().env("MHNOS_KILL_GRACE", "15s"));
    let mut wire = Wire::connect(server.address()).await;
    let saves = "trap 'trap \"\" TERM; sleep 2; echo saved > saved; exit' TERM; echo ready; while :; do sleep 0.01; done";
    let pid = wire.spawn(bash(saves)).await;
    wire.stdout_until(pid, "ready").await;
    server.signal(Signal::TERM);
    server.logged(SOON, "\"draining\"");
    kill_process(bridge(&server).expect("a bridge"), Signal::KILL).expect("it is ours");
    assert_eq!(server.wait(SOON).code(), Some(0));
    assert!(server.workspace().join("saved").exists(), "{}", server.log());
    server.assert_nothing_left();
}

#[tokio::test]
async fn a_drain_without_programs_is_over_at_once() {
    let mut server = Server::start(options().env("MHNOS_KILL_GRACE", LONG_GRACE));
    let mut wire = Wire::connect(server.address()).await;
    server.signal(Signal::TERM);
    assert_eq!(u16::from(wire.closed().await.expect("a close frame").code), 1001);
    assert_eq!(server.wait(SOON).code(), Some(0));
    server.assert_nothing_left();
}

#[tokio::test]
async fn nothing_is_spawned_during_a_drain() {
    let mut server = start();
    let mut wire = Wire::connect(server.address()).await;
    spawn_stubborn(&mut wire).await;
    server.signal(Signal::INT);
    let spawn = json!({"type": "spawn", "id": 2, "processType": "node", "command": "-p", "args": ["1"]});
    let refusal = async {
        loop {
            let answer = wire.request(spawn.clone()).await;
            if answer["type"] == "error" {
                return answer;
            }
        }
    };
    let refused = tokio::time::timeout(SOON, refusal).await.expect("the drain begins");
    assert_eq!(refused["code"], "DRAINING", "{refused}");
    // Everything else is still answered.
    assert_eq!(wire.request(json!({"type": "ping", "id": 3})).await["type"], "pong");
    assert_eq!(server.wait(SOON).code(), Some(0));
    server.assert_nothing_left();
}

#[tokio::test]
async fn a_second_signal_ends_everything_at_once() {
    let mut server = Server::start(options().env("MHNOS_KILL_GRACE", LONG_GRACE));
    let mut wire = Wire::connect(server.address()).await;
    spawn_stubborn(&mut wire).await;
    server.signal(Signal::TERM);
    server.logged(SOON, "stopping");
    server.signal(Signal::TERM);
    assert_eq!(server.wait(SOON).code(), Some(0));
    server.assert_nothing_left();
}

#[tokio::test]
async fn a_drain_goes_on_when_its_bridge_is_killed() {
    let mut server = start();
    let mut wire = Wire::connect(server.address()).await;
    spawn_stubborn(&mut wire).await;
    server.signal(Signal::TERM);
    server.logged(SOON, "draining");
    kill_process(bridge(&server).expect("there is a bridge"), Signal::KILL).expect("it is ours");
    assert_eq!(server.wait(SOON).code(), Some(0));
    server.assert_nothing_left();
}

#[tokio::test]
async fn nothing_outlives_the_keeper() {
    let mut server = start();
    let mut wire = Wire::connect(server.address()).await;
    spawn_stubborn(&mut wire).await;
    let hidden = wire.spawn(bash("setsid bash -c '(sleep 4325 &)' & echo ready; sleep 4325")).await;
    wire.stdout_until(hidden, "ready").await;
    server.kill();
    server.assert_nothing_left();
}

#[test]
fn a_port_in_use_is_an_error() {
    let server = start();
    let port = server.address().port().to_string();
    let failure = refused(options().env("MHNOS_RUNTIME_PORT", &port));
    assert_eq!(failure.0, Some(1));
    assert!(failure.1.contains(&port) && failure.1.contains("MHNOS_RUNTIME_PORT"), "{}", failure.1);
    assert_eq!(server.get("/health").status, 200, "the first one is not disturbed");
}

#[test]
fn the_port_is_free_again_as_soon_as_the_service_has_ended() {
    // Below the range that the system gives out by itself, so that nobody takes it in between.
    let candidates = (20_000..30_000).skip(std::process::id() as usize % 5_000);
    let on = |port: u16| options().env("MHNOS_RUNTIME_PORT", port.to_string());
    let mut started = candidates.filter_map(|port| Some((port, Server::try_start(on(port)).ok()?)));
    let (port, mut server) = started.next().expect("a free port");
    server.get("/health");
    server.kill();
    server.assert_nothing_left();
    Server::start(on(port));
}

#[test]
fn mistakes_in_settings_are_told_together() {
    let wrong = [
        ("MHNOS_RUNTIME_PORT", "70000"),
        ("MHNOS_SANDBOX", "tight"),
        ("MHNOS_ALLOW_OPENCLAW", "perhaps"),
        ("MHNOS_MAX_PROCESSES", "0"),
        ("MHNOS_MAX_MEMORY", "lots"),
        ("MHNOS_LOG_LEVEL", "loud"),
        ("MHNOS_KILL_GRACE", "-1s"),
    ];
    let (status, stderr) = refused(wrong.iter().fold(options(), |all, (name, value)| all.env(name, *value)));
    assert_eq!(status, Some(2), "{stderr}");
    for (name, value) in wrong {
        let told = stderr
            .lines()
            .any(|line| line.contains(name) && line.contains(value) && line.contains("expected"));
        assert!(told, "{name}: {stderr}");
    }
    let (status, stderr) = refused(options().arg("--max-memory=lots"));
    assert_eq!(status, Some(2), "{stderr}");
    assert!(stderr.contains("lots"), "{stderr}");
}

#[test]
fn a_setting_that_is_not_known_is_warned_of() {
    let server = Server::start(options().env("MHNOS_MAX_PROCESES", "3"));
    let warning = server.logged(SOON, "MHNOS_MAX_PROCESES");
    assert!(warning.contains("WARN"), "{warning}");
}

#[test]
fn a_workspace_that_cannot_be_one_is_refused_by_name() {
    let scratch = mhnos_testing::Scratch::new();
    let file = scratch.path().join("file");
    std::fs::write(&file, "x").expect("ours");
    for (workspace, status) in [
        ("/".into(), 2),
        ("/etc".into(), 2),
        ("/usr/../etc/".into(), 2),
        (file.clone(), 2),
        (file.join("below"), 1),
        ("/proc/nowhere".into(), 1),
    ] {
        let (code, stderr) = refused(options().workspace(&workspace));
        let name = workspace.to_string_lossy();
        assert_eq!(code, Some(status), "{name}: {stderr}");
        assert!(stderr.contains(&*name) && stderr.contains("MHNOS_WORKSPACE"), "{name}: {stderr}");
    }
}

#[test]
fn a_workspace_that_its_owner_cannot_write_to_is_refused() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let scratch = mhnos_testing::Scratch::new();
    let workspace = scratch.path().join("read-only");
    std::fs::create_dir(&workspace).expect("ours");
    // A service started by root goes on as the owner of the workspace, unless that is root.
    let _ = chown(&workspace, Some(12_345), Some(12_345));
    std::fs::set_permissions(&workspace, std::fs::Permissions::from_mode(0o555)).expect("ours");
    let (code, stderr) = refused(options().workspace(&workspace));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("not writable") && stderr.contains(&*workspace.to_string_lossy()), "{stderr}");
}

#[test]
fn a_workspace_is_made_with_the_directories_above_it() {
    let scratch = mhnos_testing::Scratch::new();
    let workspace = scratch.path().join("a/b/c");
    let _server = Server::start(options().workspace(&workspace));
    assert!(workspace.is_dir());
}

/// The status and stderr of a service that does not start.
#[track_caller]
fn refused(options: Options) -> (Option<i32>, String) {
    let failure = Server::try_start(options).expect_err("nothing is served");
    (failure.status.code(), failure.stderr)
}

#[tokio::test]
async fn health_tells_how_it_goes_and_everything_else_is_not_found() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let pid = wire.spawn(bash("echo ready; sleep 1000")).await;
    wire.stdout_until(pid, "ready").await;
    let reply = server.get("/health");
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")), "{reply:?}");
    let health: serde_json::Value = serde_json::from_str(&reply.body).expect("JSON");
    assert_eq!(health["status"], "ok");
    assert!(health["uptime"].is_f64(), "{health}");
    assert_eq!(health["processes"], json!({"totalSpawned": 1, "totalKilled": 0, "active": 1}));
    assert!(health["version"].is_string() && health["sandbox"]["mode"] == "strict", "{health}");
    assert!(health["sandbox"]["tier"].as_str().is_some_and(|tier| tier.starts_with('T')), "{health}");
    for path in ["/", "/healthy", "/health/", "/nothing", "//health", "/%2e%2e/etc/passwd"] {
        let reply = http_get(server.address(), path, &[]).expect("an answer");
        assert_eq!((reply.status, reply.body.as_str()), (404, "Not Found"), "{path}");
    }
}

#[tokio::test]
async fn ordinary_traffic_is_not_logged_at_info() {
    let server = Server::start(options().env("MHNOS_LOG_LEVEL", "info"));
    server.logged(SOON, "\"programs\"");
    let before = server.log();
    let mut wire = Wire::connect(server.address()).await;
    for id in 0..20 {
        assert_eq!(wire.request(json!({"type": "ping", "id": id})).await["type"], "pong");
        wire.send_text("nonsense").await;
        assert_eq!(wire.next().await["type"], "error");
    }
    drop(wire);
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.log(), before);
}

#[tokio::test]
async fn programs_outlive_their_connection() {
    let server = start();
    server.write(
        "late.mjs",
        "process.stdin.on('data', (data) => { console.log('got ' + data); process.exit(4); });\n",
    );
    let mut wire = Wire::connect(server.address()).await;
    let pid = wire.spawn(json!({"processType": "node", "command": "/late.mjs"})).await;
    drop(wire);
    let mut wire = Wire::connect(server.address()).await;
    let attached = wire.request(json!({"type": "attach", "id": 1, "pid": pid})).await;
    assert_eq!(attached["type"], "attached", "{attached}");
    wire.send(&json!({"type": "write", "pid": pid, "data": "x"})).await;
    let (stdout, _, exit) = wire.run_to_exit(pid).await;
    assert_eq!((stdout.as_str(), &exit["code"]), ("got x\n", &json!(4)));
    assert_eq!(alive(&server, "late.mjs"), Vec::<String>::new());
}
