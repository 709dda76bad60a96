//! Each request's answer, and their order.

use mhnos_testing::{Wire, WireOptions, http_get};
use serde_json::json;

use crate::{keeper::Service, lines};

async fn modern(service: &Service) -> Wire {
    Wire::connect_as(service.address, WireOptions::modern()).await
}

fn shell(script: &str) -> serde_json::Value {
    json!({"processType": "shell", "args": ["-c", script], "options": {"pty": false}})
}

#[tokio::test]
async fn the_first_message_says_who_is_there() {
    let service = Service::start();
    let mut wire = Wire::open(service.address, WireOptions::default()).await.expect("open");
    let hello = wire.next().await;
    assert_eq!(
        (hello["type"].as_str(), hello["protocolVersion"].as_str()),
        (Some("connected"), Some("1.1.0"))
    );
    assert_eq!(hello["config"]["workspace"], service.workspace.path().to_str().expect("text"));
    assert_eq!(hello["config"]["allowOpenClaw"], false);
}

#[tokio::test]
async fn a_program_is_spawned_seen_and_ends() {
    let service = Service::start();
    let mut wire = modern(&service).await;
    wire.send(&json!({"type": "spawn", "id": {"any": ["json"]}, "processType": "shell",
        "args": ["-c", "echo out; echo err >&2; exit 3"], "options": {"pty": false}}))
        .await;
    let spawned = wire.next().await;
    assert_eq!((&spawned["type"], &spawned["id"]), (&json!("spawned"), &json!({"any": ["json"]})));
    assert_eq!((&spawned["status"], &spawned["isolation"]["tier"]), (&json!("success"), &json!("none")));
    let pid = spawned["pid"].as_u64().expect("a number");
    assert_eq!(pid, 1000);
    let (stdout, stderr, exit) = wire.run_to_exit(pid).await;
    assert_eq!((stdout.as_str(), stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(
        (&exit["code"], &exit["signal"], &exit["reason"]),
        (&json!(3), &json!(null), &json!("exited"))
    );
    assert_eq!((&exit["seq"], &exit["usage"]["outputBytes"]), (&json!(8), &json!(8)));
}

#[tokio::test]
async fn ids_are_echoed_whatever_they_are_and_each_is_answered_once() {
    let service = Service::start();
    let mut wire = modern(&service).await;
    for id in [json!(7), json!(null), json!("x"), json!([1]), json!({"a": 1}), json!(1.5), json!(true)] {
        wire.send(&json!({"type": "ping", "id": id})).await;
        let pong = wire.next().await;
        assert_eq!((&pong["type"], &pong["id"]), (&json!("pong"), &id));
    }
    wire.send(&json!({"type": "ping"})).await;
    assert!(wire.next().await.get("id").is_none());
}

#[tokio::test]
async fn a_burst_is_answered_in_order() {
    let service = Service::start();
    let mut wire = modern(&service).await;
    let push = json!({"type": "fsync", "id": 1, "operation": "push", "files":
        [{"path": "/say.sh", "kind": "file", "content": "echo pushed\n"}]});
    wire.send(&push).await;
    let spawn = json!({"type": "spawn", "id": 2, "processType": "shell", "args": ["say.sh"], "options": {"pty": false}});
    wire.send(&spawn).await;
    wire.send(&json!({"type": "list", "id": 3})).await;
    wire.send(&json!({"type": "ping", "id": 4})).await;
    let mut ids = Vec::new();
    let mut pid = None;
    while ids.len() < 4 {
        let answer = wire.next_where(|value| !value["id"].is_null()).await;
        pid = pid.or(answer["pid"].as_u64());
        ids.push(answer["id"].as_u64().expect("an id"));
    }
    assert_eq!(ids, [1, 2, 3, 4]);
    let (stdout, ..) = wire.run_to_exit(pid.expect("spawned")).await;
    assert_eq!(stdout, "pushed\n");
}

#[tokio::test]
async fn what_is_written_arrives_in_order_and_end_of_file_is_seen() {
    let service = Service::start();
    let mut wire = modern(&service).await;
    let pid = wire.spawn(shell("cat")).await;
    for n in 0..100 {
        wire.send(&json!({"type": "write", "pid": pid, "data": format!("{n}\n")})).await;
    }
    let written = wire.request(json!({"type": "write", "id": "w", "pid": pid, "data": "last\n"})).await;
    assert_eq!((&written["type"], &written["pid"]), (&json!("written"), &json!(pid)));
    let closed = wire.request(json!({"type": "closeStdin", "id": "c", "pid": pid})).await;
    assert_eq!(closed["type"], "stdinClosed");
    let (stdout, _, exit) = wire.run_to_exit(pid).await;
    let expected = lines(0..100);
    assert_eq!(stdout, expected + "last\n");
    assert_eq!(exit["code"], 0);
    let refused = wire.request(json!({"type": "write", "id": "w2", "pid": pid, "data": "x"})).await;
    assert_eq!(refused["type"], "error");
    assert!(
        ["PROCESS_EXITED", "STDIN_CLOSED"].contains(&refused["code"].as_str().expect("a code")),
        "{refused}"
    );
}

#[tokio::test]
async fn a_kill_is_answered_after_the_exit_and_holds_nothing_up() {
    let service = Service::start_with(|config| config.kill_grace = std::time::Duration::from_millis(300));
    let mut wire = modern(&service).await;
    let pid = wire.spawn(shell("trap '' TERM; echo ready; while :; do sleep 0.05; done")).await;
    wire.stdout_until(pid, "ready").await;
    wire.send(&json!({"type": "kill", "id": "k", "pid": pid})).await;
    wire.send(&json!({"type": "ping", "id": "p"})).await;
    let mut order = Vec::new();
    while order.len() < 3 {
        let value = wire.next_where(|value| value["type"] != "stdout").await;
        order.push(value["type"].as_str().expect("a type").to_owned());
        if value["type"] == "exit" {
            assert_eq!((&value["code"], &value["signal"]), (&json!(null), &json!("SIGKILL")));
            assert_eq!(value["reason"], "killed");
        }
    }
    assert_eq!(order, ["pong", "exit", "killed"]);
    let again = wire.request(json!({"type": "kill", "id": "k2", "pid": pid})).await;
    assert_eq!((&again["type"], &again["ended"]), (&json!("killed"), &json!(true)));
    let stats = wire.request(json!({"type": "status", "id": "s"})).await;
    assert_eq!(stats["stats"], json!({"totalSpawned": 1, "totalKilled": 1, "active": 0}));
}

#[tokio::test]
async fn a_signal_that_does_not_end_is_answered_when_delivered() {
    let service = Service::start();
    let mut wire = modern(&service).await;
    let pid = wire.spawn(shell("trap 'echo got' USR1; echo ready; while :; do sleep 0.05; done")).await;
    wire.stdout_until(pid, "ready").await;
    let killed = wire.request(json!({"type": "kill", "id": 1, "pid": pid, "signal": "SIGUSR1"})).await;
    assert_eq!((&killed["type"], &killed["ended"]), (&json!("killed"), &json!(false)));
    wire.stdout_until(pid, "got").await;
}

#[tokio::test]
async fn list_and_status_describe_what_is_there() {
    let service = Service::start();
    let mut wire = modern(&service).await;
    let mut request = shell("read line");
    request["options"]["name"] = "waiting".into();
    let pid = wire.spawn(request).await;
    let list = wire.request(json!({"type": "list", "id": 1})).await;
    let process = &list["processes"][0];
    assert_eq!((&process["pid"], &process["type"]), (&json!(pid), &json!("shell")));
    assert_eq!((&process["status"], &process["name"]), (&json!("running"), &json!("waiting")));
    assert_eq!(process["args"], json!(["-c", "read line"]));
    assert!(process["startTime"].as_u64().is_some_and(|time| time > 1_600_000_000_000));

    wire.request(json!({"type": "closeStdin", "id": 2, "pid": pid})).await;
    wire.run_to_exit(pid).await;
    let list = wire.request(json!({"type": "list", "id": 3})).await;
    assert_eq!(list["processes"], json!([]));
    let all = wire.request(json!({"type": "list", "id": 4, "all": true})).await;
    assert_eq!(
        (&all["processes"][0]["status"], &all["processes"][0]["exit"]["code"]),
        (&json!("exited"), &json!(1))
    );

    let status = wire.request(json!({"type": "status", "id": 5})).await;
    assert_eq!(status["limits"]["maxMessageBytes"], 100 * 1024 * 1024);
    let tools = status["tools"].as_array().expect("tools");
    assert!(tools.iter().any(|tool| tool["type"] == "shell" && tool["available"] == true), "{tools:?}");
    assert!(tools.iter().any(|tool| tool["type"] == "openclaw" && tool["available"] == false), "{tools:?}");
}

#[tokio::test]
async fn processes_outlive_connections_and_other_connections_may_take_over() {
    let service = Service::start();
    let mut first = modern(&service).await;
    let pid = first.spawn(shell("echo one; read line; echo $line; exit 7")).await;
    first.stdout_until(pid, "one\n").await;
    drop(first);
    let mut second = modern(&service).await;
    second.send(&json!({"type": "attach", "id": "a", "pid": pid})).await;
    assert_eq!(second.next().await["data"], "one\n");
    let attached = second.next().await;
    assert_eq!(
        (&attached["type"], &attached["status"], &attached["seq"]),
        (&json!("attached"), &json!("running"), &json!(4))
    );
    second.send(&json!({"type": "write", "pid": pid, "data": "two\n"})).await;
    let (stdout, _, exit) = second.run_to_exit(pid).await;
    assert_eq!((stdout.as_str(), &exit["code"]), ("two\n", &json!(7)));

    let mut third = modern(&service).await;
    third.send(&json!({"type": "attach", "id": "a", "pid": pid})).await;
    let kinds = [third.next().await, third.next().await, third.next().await];
    let kinds: Vec<_> = kinds.iter().map(|value| value["type"].as_str().expect("a type")).collect();
    assert_eq!(kinds, ["stdout", "attached", "exit"]);
}

#[tokio::test]
async fn a_burst_of_spawns_never_passes_the_limit() {
    let service = Service::start_with(|config| config.max_processes = 3);
    let mut wire = modern(&service).await;
    for id in 0..10 {
        let mut spawn = shell("read line");
        spawn["type"] = "spawn".into();
        spawn["id"] = id.into();
        wire.send(&spawn).await;
    }
    let mut spawned = 0;
    for _ in 0..10 {
        let answer = wire.next_where(|value| !value["id"].is_null()).await;
        match answer["type"].as_str() {
            Some("spawned") => spawned += 1,
            _ => assert_eq!(answer["code"], "PROCESS_LIMIT", "{answer}"),
        }
    }
    assert_eq!(spawned, 3);
}

#[tokio::test]
async fn health_counts_processes() {
    let service = Service::start();
    let mut wire = modern(&service).await;
    let pid = wire.spawn(shell("exit 0")).await;
    wire.run_to_exit(pid).await;
    let address = service.address;
    let reply =
        tokio::task::spawn_blocking(move || http_get(address, "/health", &[])).await.expect("no panic");
    let reply = reply.expect("an answer");
    let health: serde_json::Value = serde_json::from_str(&reply.body).expect("JSON");
    assert_eq!(health["status"], "ok");
    assert_eq!(health["processes"], json!({"totalSpawned": 1, "totalKilled": 0, "active": 0}));
    assert_eq!(health["sandbox"], json!({"mode": "none", "tier": "none"}));
}
