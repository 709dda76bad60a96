//! `/metrics` is what Prometheus reads, and says exactly what was done.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use mhnos_testing::{Exposition, Server, Wire, WireOptions, eventually, http_get, http_raw};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    bridge_killed::kill_bridge,
    requests::{bash, with_options},
    start,
};

/// Longest time for what takes milliseconds.
const SOON: Duration = Duration::from_secs(20);

/// What has been counted since `before`, once `series` is among it; byte counts of frames aside, which follow from
/// how replies are written.
fn moved(server: &Server, before: &Exposition, series: &str) -> BTreeMap<String, i64> {
    let mut moved = eventually(SOON, series, || {
        let moved = Exposition::of(server.address()).moved_since(before);
        moved.contains_key(series).then_some(moved)
    });
    moved.retain(|series, _| !series.starts_with("mhnos_sent_") && !series.starts_with("mhnos_received_"));
    moved
}

fn expected(counts: &[(&str, i64)]) -> BTreeMap<String, i64> {
    counts.iter().map(|(series, count)| ((*series).to_owned(), *count)).collect()
}

async fn modern(address: SocketAddr) -> Wire {
    Wire::connect_as(address, WireOptions::modern()).await
}

#[tokio::test]
async fn what_a_program_does_is_counted_once() {
    let server = start();
    let before = Exposition::of(server.address());
    assert_eq!(before.count("mhnos_processes_max"), 50);
    let mut wire = modern(server.address()).await;
    let pid = wire.spawn(bash("read line; echo got $line; echo more >&2; exit 3")).await;
    let now = Exposition::of(server.address());
    assert_eq!(now.count("mhnos_processes{type=\"shell\",state=\"running\"}"), 1);
    assert_eq!((now.count("mhnos_viewers"), now.count("mhnos_processes_active")), (1, 1));
    assert_eq!(now.count("mhnos_connections{client=\"text\"}"), 1);
    let answer = wire.request(json!({"type": "write", "id": 1, "pid": pid, "data": "line\n"})).await;
    assert_eq!(answer["type"], "written", "{answer}");
    wire.run_to_exit(pid).await;
    let failed =
        wire.request(json!({"type": "spawn", "id": 2, "processType": "node", "command": "no.js"})).await;
    assert_eq!(failed["code"], "PATH_NOT_FOUND", "{failed}");
    let push = json!({"type": "fsync", "id": 3, "operation": "push", "files": [
        {"path": "a", "kind": "file", "content": "12345"}, {"path": "../b", "kind": "file", "content": "x"}]});
    assert_eq!(wire.request(push).await["results"]["failed"], 1);
    wire.send_message(Message::Close(None)).await.expect("open");
    wire.closed().await;
    let moved = moved(&server, &before, "mhnos_disconnections_total{reason=\"left\"}");
    let counts = [
        ("mhnos_connections_total{client=\"text\"}", 1),
        ("mhnos_disconnections_total{reason=\"left\"}", 1),
        ("mhnos_errors_total{code=\"PATH_NOT_FOUND\"}", 1),
        ("mhnos_input_bytes_total", 5),
        ("mhnos_output_bytes_total{type=\"shell\"}", 14),
        ("mhnos_processes_ended_total{type=\"shell\",reason=\"exited\"}", 1),
        ("mhnos_processes_started_total{type=\"shell\"}", 1),
        ("mhnos_push_failures_total", 1),
        ("mhnos_pushed_bytes_total", 5),
        ("mhnos_pushed_files_total", 1),
        ("mhnos_requests_total{type=\"push\"}", 1),
        ("mhnos_requests_total{type=\"spawn\"}", 2),
        ("mhnos_requests_total{type=\"write\"}", 1),
        ("mhnos_spawn_failures_total{code=\"PATH_NOT_FOUND\"}", 1),
    ];
    assert_eq!(moved, expected(&counts));
    let now = Exposition::of(server.address());
    assert_eq!(now.count("mhnos_spawn_duration_seconds_count{type=\"shell\"}"), 1);
    assert_eq!(now.count("mhnos_processes{type=\"shell\",state=\"retained\"}"), 1);
    assert_eq!(now.count("mhnos_output_log_bytes"), 14);
    assert_eq!(now.count("mhnos_connections{client=\"text\"}"), 0);
}

#[tokio::test]
async fn everybody_who_is_turned_away_is_counted_by_the_cause() {
    let server = start();
    let address = server.address();
    let before = Exposition::of(address);
    let status = |path: &str, headers: &[&str]| http_get(address, path, headers).expect("an answer").status;
    assert_eq!(status("/metrics", &["Host: evil.example"]), 403);
    assert_eq!(status("/metrics", &["Origin: https://evil.example"]), 403);
    assert_eq!(status("/", &["Origin: null"]), 403);
    assert_eq!(status("/", &["Upgrade: websocket"]), 400);
    let answer = http_raw(address, b"\x01 is not HTTP\r\n\r\n");
    assert!(answer.expect("cut or answered").starts_with(b"HTTP/1.1 400"), "not HTTP");
    let moved = moved(&server, &before, "mhnos_refusals_total{cause=\"bad_http\"}");
    let counts = [
        ("mhnos_refusals_total{cause=\"bad_handshake\"}", 1),
        ("mhnos_refusals_total{cause=\"bad_http\"}", 1),
        ("mhnos_refusals_total{cause=\"foreign_host\"}", 1),
        ("mhnos_refusals_total{cause=\"foreign_origin\"}", 1),
        ("mhnos_refusals_total{cause=\"null_origin\"}", 1),
    ];
    assert_eq!(moved, expected(&counts));
}

#[tokio::test]
async fn nothing_a_client_sends_makes_a_series() {
    let server = start();
    let before: Vec<String> = Exposition::of(server.address()).families().map(str::to_owned).collect();
    let mut wire = Wire::connect_as(server.address(), WireOptions::browser()).await;
    for request in [
        json!({"type": "no\"such", "id": 1}),
        json!({"type": "spawn", "id": 2, "processType": "ru\nby", "options": {"name": "a{b=\"c\"}"}}),
    ] {
        assert_eq!(wire.request(request).await["type"], "error");
    }
    let pid = wire.spawn(with_options(bash("exit"), json!({"name": "\"} 1", "pty": false}))).await;
    wire.send(&json!({"type": "attach", "id": 4, "pid": pid})).await;
    wire.next_where(|message: &Value| message["type"] == "exit").await;
    let now = Exposition::of(server.address());
    assert_eq!(now.families().map(str::to_owned).collect::<Vec<_>>(), before);
    assert_eq!(now.count("mhnos_connections_total{client=\"web_os\"}"), 1);
}

#[tokio::test]
async fn totals_of_processes_go_on_when_the_bridge_dies() {
    let server = start();
    let mut wire = modern(server.address()).await;
    for script in ["echo 1234567", "exit 1", "kill -9 $$"] {
        let pid = wire.spawn(bash(script)).await;
        wire.run_to_exit(pid).await;
    }
    let running = wire.spawn(bash("echo ready; read line")).await;
    wire.stdout_until(running, "ready").await;
    let before = Exposition::of(server.address());
    assert_eq!(before.count("mhnos_bridge_restarts_total"), 0);
    kill_bridge(&server);
    let after = Exposition::of(server.address());
    assert_eq!(after.count("mhnos_bridge_restarts_total"), 1);
    for series in [
        "mhnos_processes_started_total{type=\"shell\"}",
        "mhnos_processes_ended_total{type=\"shell\",reason=\"exited\"}",
        "mhnos_processes_ended_total{type=\"shell\",reason=\"signaled\"}",
        "mhnos_output_bytes_total{type=\"shell\"}",
        "mhnos_processes{type=\"shell\",state=\"running\"}",
    ] {
        assert_eq!(after.count(series), before.count(series), "{series}");
        assert!(after.count(series) > 0, "{series}");
    }
    let starts = [&before, &after].map(|scraped| scraped.value("mhnos_start_time_seconds").to_bits());
    assert_eq!(starts[0], starts[1], "the keeper is the same");
    assert_eq!(after.count("mhnos_requests_total{type=\"spawn\"}"), 0, "counted by the bridge itself");
}

/// What the documentation names is there, and what is there is documented.
#[tokio::test]
async fn every_family_is_documented_and_every_documented_one_exists() {
    let text = include_str!("../../../../docs/metrics.md");
    let server = start();
    let scraped = Exposition::of(server.address());
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = text.split(|c| !is_name(c));
    let named: BTreeSet<&str> = words.filter(|word| word.starts_with("mhnos_")).collect();
    for family in scraped.families() {
        assert!(text.contains(&format!("`{family}`")), "{family} is not documented");
    }
    let exists = |name: &str| {
        let family = name.strip_suffix("_bucket").unwrap_or(name);
        scraped.families().any(|known| known == family)
    };
    let unknown: Vec<_> = named.into_iter().filter(|name| !exists(name)).collect();
    assert!(unknown.is_empty(), "documented, but not there: {unknown:?}");
}
