//! Every request is answered, once, in order, with what is true.

use std::collections::HashMap;

use mhnos_testing::{Wire, WireOptions};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    requests::{assert_serves, bash, kill, node},
    start,
};

/// Defect 21.
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
async fn every_request_of_a_burst_is_answered_exactly_once() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let pid = wire.spawn(bash("cat")).await;
    let kinds = [
        json!({"type": "ping"}),
        json!({"type": "list"}),
        json!({"type": "status"}),
        json!({"type": "write", "pid": pid, "data": ""}),
        json!({"type": "resize", "pid": pid, "cols": 80, "rows": 24}),
        json!({"type": "detach", "pid": pid}),
        json!({"type": "attach", "pid": pid}),
        json!({"type": "attach", "pid": 1}),
        json!({"type": "fsync", "operation": "push", "files": []}),
        json!({"type": "fsync", "operation": "pull"}),
        json!({"type": "kill", "pid": pid, "signal": "SIGCONT"}),
        json!({"type": "nonsense"}),
    ];
    for (id, kind) in kinds.iter().cycle().take(240).enumerate() {
        let mut request = kind.clone();
        request["id"] = id.into();
        wire.send(&request).await;
    }
    wire.send(&json!({"type": "kill", "id": 240, "pid": pid})).await;
    let mut answers: HashMap<u64, Value> = HashMap::new();
    while answers.len() < 241 {
        let answer = wire.next_where(|message| message["id"].is_u64()).await;
        let id = answer["id"].as_u64().expect("filtered");
        assert_eq!(answers.insert(id, answer.clone()), None, "answered twice: {answer}");
    }
    // Whatever came after the last one would be a second answer.
    let rest = wire.request(json!({"type": "ping", "id": "last"})).await;
    assert_eq!(rest["type"], "pong");
    let types: Vec<_> = (0..12).map(|id| answers[&id]["type"].as_str().unwrap_or_default()).collect();
    let expected = [
        "pong",
        "processList",
        "status",
        "written",
        "resized",
        "detached",
        "attached",
        "error",
        "fsyncResult",
        "fsyncResult",
        "killed",
        "error",
    ];
    assert_eq!(types, expected);
    assert_eq!(answers[&240]["type"], "killed");
}

/// Defect 21.
#[tokio::test]
async fn a_signal_is_told_by_name_for_every_type() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let killers = [
        bash("kill -9 $$"),
        node("process.kill(process.pid, 'SIGKILL')"),
        json!({"processType": "python", "command": "-c", "args": ["import os; os.kill(os.getpid(), 9)"]}),
        json!({"processType": "shell", "command": "bash", "args": ["-c", "kill -9 $$"]}),
    ];
    for spawn in killers {
        let pid = wire.spawn(spawn).await;
        let (.., exit) = wire.run_to_exit(pid).await;
        assert_eq!((&exit["code"], &exit["signal"]), (&Value::Null, &json!("SIGKILL")), "{exit}");
        assert_eq!(exit["reason"], "signaled", "{exit}");
    }
    for spawn in
        [bash("exit 7"), node("process.exit(7)"), json!({"processType": "shell", "args": ["-c", "exit 7"]})]
    {
        let pid = wire.spawn(spawn).await;
        let (.., exit) = wire.run_to_exit(pid).await;
        assert_eq!((&exit["code"], &exit["signal"]), (&json!(7), &Value::Null), "{exit}");
    }
}

/// Defect 21.
#[tokio::test]
async fn statistics_count_what_their_names_say() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    for script in ["exit 0", "kill -9 $$"] {
        let pid = wire.spawn(bash(script)).await;
        wire.run_to_exit(pid).await;
    }
    let victim = wire.spawn(bash("echo ready; sleep 1000")).await;
    wire.stdout_until(victim, "ready").await;
    let stats = wire.request(json!({"type": "status", "id": 1})).await["stats"].clone();
    let counts = |stats: &Value| ["totalSpawned", "totalKilled", "active"].map(|name| stats[name].as_u64());
    assert_eq!(counts(&stats), [Some(3), Some(0), Some(1)], "{stats}");
    kill(&mut wire, victim).await;
    let stats = wire.request(json!({"type": "list", "id": 2})).await["stats"].clone();
    assert_eq!(counts(&stats), [Some(3), Some(1), Some(0)], "{stats}");
}

/// Defect 21.
#[tokio::test]
async fn killing_what_is_not_there_is_an_error() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let unknown = wire.request(json!({"type": "kill", "id": 1, "pid": 4_000_000})).await;
    assert_eq!(
        (&unknown["type"], &unknown["code"]),
        (&json!("error"), &json!("PROCESS_NOT_FOUND")),
        "{unknown}"
    );
    for spawn in
        [bash("echo ready; read x"), json!({"processType": "shell", "args": ["-c", "echo ready; read x"]})]
    {
        let pid = wire.spawn(spawn).await;
        wire.stdout_until(pid, "ready").await;
        for signal in [json!("SIGFOO"), json!(-1), json!({}), json!(99), json!([9])] {
            let answer = wire.request(json!({"type": "kill", "id": 2, "pid": pid, "signal": signal})).await;
            assert_eq!(answer["code"], "UNKNOWN_SIGNAL", "{signal}: {answer}");
        }
        wire.send(&json!({"type": "write", "pid": pid, "data": "\n"})).await;
        assert_eq!(wire.run_to_exit(pid).await.2["reason"], "exited", "no signal was sent");
    }
}

/// Every spelling the predecessor took, and the usual ones.
#[tokio::test]
async fn a_signal_may_be_given_as_a_name_in_any_case_as_a_number_or_not_at_all() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    for (signal, expected) in [
        (json!("sigterm"), "SIGTERM"),
        (json!("TERM"), "SIGTERM"),
        (json!(15), "SIGTERM"),
        (json!(9), "SIGKILL"),
        (json!(0), "SIGTERM"),
        (json!(""), "SIGTERM"),
        (json!(null), "SIGTERM"),
        (json!("SIGUSR1"), "SIGUSR1"),
    ] {
        let pid = wire.spawn(bash("echo ready; sleep 1000")).await;
        wire.stdout_until(pid, "ready").await;
        let answer = wire
            .request(json!({"type": "kill", "id": 1, "pid": pid, "signal": signal, "scope": "leader"}))
            .await;
        assert_eq!(answer["type"], "killed", "{signal}: {answer}");
        let (.., exit) = wire.run_to_exit(pid).await;
        assert_eq!(
            (&exit["signal"], &exit["reason"]),
            (&json!(expected), &json!("killed")),
            "{signal}: {exit}"
        );
    }
}

/// Defect 22.
#[tokio::test]
async fn what_fails_is_told_even_to_a_request_without_an_id() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    for request in [
        json!({"type": "write", "pid": 4_000_000, "data": "x"}),
        json!({"type": "resize", "pid": 4_000_000, "cols": 80, "rows": 24}),
        json!({"type": "closeStdin", "pid": 4_000_000}),
        json!({"type": "attach", "pid": 4_000_000}),
        json!({"type": "kill", "pid": 4_000_000}),
    ] {
        wire.send(&request).await;
        let answer = wire.next().await;
        assert_eq!(
            (&answer["type"], &answer["code"]),
            (&json!("error"), &json!("PROCESS_NOT_FOUND")),
            "{request}"
        );
        assert!(answer.get("id").is_none(), "{answer}");
        assert_eq!(answer["pid"], 4_000_000, "{answer}");
    }
    // What succeeds stays silent without an id.
    let pid = wire.spawn(bash("cat")).await;
    wire.send(&json!({"type": "write", "pid": pid, "data": ""})).await;
    wire.send(&json!({"type": "resize", "pid": pid, "cols": 80, "rows": 24})).await;
    assert_serves(&mut wire).await;
}

/// Defect 24: the page resolves a request by `spawned`, `attached`, `killed`, `processList`, `status` or `error` alone.
#[tokio::test]
async fn the_web_os_page_gets_an_answer_of_a_type_it_knows() {
    const KNOWN: [&str; 6] = ["spawned", "attached", "killed", "processList", "status", "error"];
    let server = start();
    let mut page = Wire::connect_as(server.address(), WireOptions::browser()).await;
    let mut spawn = bash("echo for the page; read x");
    spawn["id"] = "spawn".into();
    let pid = page.spawn(spawn).await;
    let file = json!([{"path": "/a", "kind": "file", "content": [65]}]);
    for (id, request) in [
        json!({"type": "ping"}),
        json!({"type": "fsync", "operation": "push", "files": file}),
        json!({"type": "attach", "pid": pid}),
        json!({"type": "detach", "pid": pid}),
        json!({"type": "list"}),
        json!({"type": "status"}),
        json!({"type": "kill", "pid": pid}),
    ]
    .into_iter()
    .enumerate()
    {
        let mut request = request.clone();
        request["id"] = id.into();
        page.send(&request).await;
        let answer = page
            .next_where(|message| {
                message["id"] == id && KNOWN.contains(&message["type"].as_str().unwrap_or_default())
            })
            .await;
        assert_ne!(answer["type"], "error", "{request}: {answer}");
    }
    // A client that is no page gets one answer.
    let mut wire = Wire::connect(server.address()).await;
    wire.send(&json!({"type": "ping", "id": 1})).await;
    wire.send(&json!({"type": "list", "id": 2})).await;
    assert_eq!(
        [wire.next().await["type"].clone(), wire.next().await["type"].clone()],
        ["pong", "processList"]
    );
}

/// A list goes to whoever asks, as often as they ask: what programs were given must not make it large.
#[tokio::test]
async fn a_list_of_programs_with_long_arguments_is_short() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let mut args = vec![json!("-c"), json!("exit 0")];
    args.extend(vec![json!("x".repeat(120_000)); 8]);
    for _ in 0..3 {
        let pid = wire
            .spawn(
                json!({"processType": "shell", "command": "bash", "args": args, "options": {"pty": false}}),
            )
            .await;
        assert_eq!(wire.run_to_exit(pid).await.2["code"], 0);
    }
    let list = wire.request(json!({"type": "list", "id": 1, "all": true})).await;
    assert_eq!(list["processes"].as_array().map(Vec::len), Some(3));
    for process in list["processes"].as_array().into_iter().flatten() {
        assert_eq!(process["command"], "bash");
        let told = process["args"].to_string();
        assert!(told == r#"["-c","exit 0"]"#, "{} bytes", told.len());
    }
}

/// Each error names its path, escaped: without a bound this answer has 33 MB, and of the most entries ten times that.
#[tokio::test]
async fn the_answer_to_a_push_that_fails_throughout_is_bounded() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let name = "\u{7f}".repeat(4092);
    let mut files = vec![json!({"path": format!("../{name}"), "kind": "directory"}); 998];
    files.insert(0, json!({"path": "../first", "kind": "directory"}));
    files.push(json!({"path": "../last", "kind": "directory"}));
    wire.send(&json!({"type": "fsync", "id": 1, "operation": "push", "files": files})).await;
    let answer = wire.next_where(|message| message["id"] == 1).await;
    let bytes = answer.to_string().len();
    assert!(bytes < 4 << 20, "{bytes} bytes");
    let results = &answer["results"];
    assert_eq!((&results["synced"], &results["failed"]), (&json!(0), &json!(1000)));
    let errors = results["errors"].as_array().expect("errors");
    assert!((3..100).contains(&errors.len()), "{} errors", errors.len());
    assert_eq!(errors[0]["path"], "../first");
    // What is small finds room where larger ones did not.
    assert_eq!(errors[errors.len() - 1]["path"], "../last");
}

#[tokio::test]
async fn json_may_come_in_binary_frames_whatever_white_space_it_begins_with() {
    let server = start();
    for options in [WireOptions::browser(), WireOptions::modern(), WireOptions::binary()] {
        let mut wire = Wire::connect_as(server.address(), options).await;
        for (id, space) in ["", " ", "\n", "\r\n", "\t"].iter().enumerate() {
            let ping = format!("{space}{}", json!({"type": "ping", "id": id}));
            wire.send_message(Message::binary(ping.into_bytes())).await.expect("open");
            let pong = wire.next_where(|message| message["id"] == id && message["type"] != "status").await;
            assert_eq!(pong["type"], "pong", "{space:?}: {pong}");
        }
    }
}
