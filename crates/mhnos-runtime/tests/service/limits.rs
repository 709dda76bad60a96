//! Every bound that `status` tells: the answer whoever passes it gets, and the test that passes it. The bounds that no
//! other test is about are passed here.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use mhnos_testing::{Server, Wire, WireOptions, eventually_async};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    options,
    requests::{assert_serves, bash, resident_kib},
    start,
};

/// The bounds by their names in `status.limits`, each with tests that pass it.
const SHOWN_BY: &[(&str, &[&str])] = &[
    ("authMs", &["a_client_that_shows_no_token_in_time_is_told_so"]),
    (
        "framesPerSecond",
        &["floods_of_pings_and_requests_are_paced", "whole_messages_are_no_fragments_but_are_paced"],
    ),
    ("handshakeMs", &["a_slow_first_request_is_cut_and_told"]),
    ("killGraceMs", &["a_kill_escalates_and_takes_all_descendants"]),
    ("maxConnections", &["connections_are_limited_by_address_and_in_all_and_the_limit_is_named"]),
    ("maxConnectionsPerAddress", &["connections_are_limited_by_address_and_in_all_and_the_limit_is_named"]),
    ("maxFragments", &["a_message_of_endless_fragments_is_refused"]),
    ("maxHandshakes", &["half_open_handshakes_are_in_nobodys_way"]),
    ("maxHeaderBytes", &["a_request_that_is_too_large_or_no_http_is_refused"]),
    (
        "maxMessageBytes",
        &["large_messages_are_taken_up_to_the_limit", "broken_frames_close_their_connection_alone"],
    ),
    ("maxPendingRequests", &["with_too_many_requests_unanswered_a_connection_is_read_no_further"]),
    ("maxPullBytes", &["a_pull_that_is_too_large_is_refused_before_anything_is_sent"]),
    ("maxQueuedBytes", &["whoever_takes_no_answers_is_read_no_further"]),
    ("maxViewers", &["viewers_beyond_the_limit_are_refused_until_one_leaves"]),
    (
        "messageBudgetBytes",
        &[
            "large_messages_of_many_are_bounded_all_together",
            "fragments_with_pings_between_are_bounded_all_together",
        ],
    ),
    ("outputLogBytes", &["replay_reports_a_gap_when_the_log_wrapped"]),
    (
        "pingIntervalMs",
        &["a_peer_that_answers_no_ping_is_dropped", "a_client_that_answers_no_pings_is_dropped"],
    ),
    ("retainedMs", &["what_ended_long_ago_is_forgotten"]),
    ("retainedProcesses", &["only_the_newest_ended_ones_are_retained"]),
    ("spawnsPerSecond", &["spawns_beyond_the_pace_are_refused_and_start_nothing"]),
    ("stallDeadlineMs", &["a_stalled_client_costs_bounded_memory_and_wakes_to_a_gap"]),
    (
        "stdinQueueBytes",
        &["a_program_that_does_not_read_costs_bounded_memory", "a_full_queue_says_how_much_was_taken"],
    ),
    ("viewerWindowBytes", &["a_viewer_that_takes_nothing_holds_the_program_until_it_stalls"]),
];

#[tokio::test]
async fn every_limit_that_is_told_has_a_test_and_stands_in_the_protocol() {
    let server = start();
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let status = wire.request(json!({"type": "status", "id": 1})).await;
    let told: BTreeSet<&str> =
        status["limits"].as_object().expect("limits").keys().map(String::as_str).collect();
    let known: BTreeSet<&str> = SHOWN_BY.iter().map(|(name, _)| *name).collect();
    assert_eq!(told, known, "each is passed by a test that is named here");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut sources = String::new();
    gather(&root.join("crates"), &mut sources);
    for (limit, tests) in SHOWN_BY {
        for test in *tests {
            assert!(sources.contains(&format!("fn {test}(")), "{limit}: there is no test {test}");
        }
    }
    let protocol = fs::read_to_string(root.join("docs/protocol.md")).expect("it is there");
    for limit in told {
        assert!(
            protocol.contains(&format!("`{limit}`")) || protocol.contains(&format!("`limits.{limit}`")),
            "{limit}"
        );
    }
}

/// The text of all sources below a directory.
fn gather(directory: &Path, into: &mut String) {
    for entry in fs::read_dir(directory).expect("a directory of the repository") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            gather(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(path).expect("text"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_beyond_the_limit_are_refused_until_one_leaves() {
    crate::bad_clients::allow_many_files();
    let server = Server::start(options().env("MHNOS_MAX_CONNECTIONS_PER_ADDRESS", "4096"));
    let mut owner = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let pid = owner.spawn(bash("echo begun; read line; echo got $line")).await;
    owner.stdout_until(pid, "begun").await;
    let limits = owner.request(json!({"type": "status", "id": 1})).await["limits"].clone();
    let most = limits["maxViewers"].as_u64().expect("a number") as usize;
    let attach = |id: usize| json!({"type": "attach", "id": id, "pid": pid});
    // The spawner is one of them.
    let mut viewers = Vec::new();
    for id in 1..most {
        let mut viewer = Wire::connect_as(server.address(), WireOptions::modern()).await;
        assert_eq!(viewer.request(attach(id)).await["type"], "attached", "viewer {id}");
        viewers.push(viewer);
    }
    let mut late = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let answer = late.request(attach(0)).await;
    assert_eq!((&answer["code"], &answer["pid"]), (&json!("TOO_MANY_REQUESTS"), &json!(pid)), "{answer}");
    assert!(answer["error"].as_str().is_some_and(|text| text.contains(&most.to_string())), "{answer}");
    // One leaves by detaching, one by hanging up: a place for each.
    let detached = viewers[0].request(json!({"type": "detach", "id": 0, "pid": pid})).await;
    assert_eq!(detached["type"], "detached");
    viewers.pop();
    for id in 0..2 {
        let mut next = Wire::connect_as(server.address(), WireOptions::modern()).await;
        eventually_async(Duration::from_mins(1), "a place is free", async || {
            (next.request(attach(id)).await["type"] == "attached").then_some(())
        })
        .await;
        viewers.push(next);
    }
    owner.send(&json!({"type": "write", "pid": pid, "data": "news\n"})).await;
    let last = viewers.last_mut().expect("one");
    last.stdout_until(pid, "got news").await;
}

#[tokio::test]
async fn a_client_that_shows_no_token_in_time_is_told_so() {
    let server = Server::start(options().env("MHNOS_AUTH_TOKEN", "correct-horse-battery-staple"));
    let mut silent = Wire::open(server.address(), WireOptions::modern()).await.expect("a handshake");
    let begun = std::time::Instant::now();
    let answer = silent.next().await;
    assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("UNAUTHORIZED")), "{answer}");
    assert_eq!(silent.closed().await.map(|close| u16::from(close.code)), Some(1008));
    assert!(begun.elapsed() >= Duration::from_secs(9), "not before its time: {:?}", begun.elapsed());
}

#[tokio::test]
async fn with_too_many_requests_unanswered_a_connection_is_read_no_further() {
    const MOST: u64 = 256;
    // What asks to end it is answered when it has ended, and that takes its grace.
    let server = Server::start(options().env("MHNOS_KILL_GRACE", "4s"));
    for (kills, first) in [(MOST - 1, "pong"), (MOST, "killed")] {
        let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
        let pid = wire.spawn(bash("trap '' TERM; echo ready; while :; do read line; done")).await;
        wire.stdout_until(pid, "ready").await;
        for id in 0..kills {
            wire.send(&json!({"type": "kill", "id": id, "pid": pid, "signal": "SIGTERM"})).await;
        }
        wire.send(&json!({"type": "ping", "id": "behind"})).await;
        let answered = |message: &Value| matches!(message["type"].as_str(), Some("killed" | "pong"));
        let answer = wire.next_where(answered).await;
        assert_eq!(answer["type"], first, "with {kills} unanswered");
        for _ in 0..kills {
            let answer = wire.next_where(answered).await;
            assert!(
                answer["type"] == "killed" || (first == "killed" && answer["id"] == "behind"),
                "{answer}"
            );
        }
        assert_serves(&mut wire).await;
    }
}

#[tokio::test]
async fn whoever_takes_no_answers_is_read_no_further() {
    let server = start();
    let mut bystander = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let mut greedy = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let before = resident_kib(&server);
    let padding = "x".repeat(4096);
    let mut asked = 0_u64;
    // Until the sockets on the way are full: far more than they hold would have been taken otherwise.
    loop {
        let ask = json!({"type": "status", "id": asked, "padding": padding}).to_string();
        if timeout(Duration::from_secs(5), greedy.send_text(&ask)).await.is_err() {
            break;
        }
        asked += 1;
        assert!(asked < 100_000, "all of it was taken, and no answer was");
    }
    assert_serves(&mut bystander).await;
    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown < 32 * 1024, "grew by {grown} KiB");
    // Nothing was dropped: each is answered, in order, once they are taken.
    for id in 0..asked {
        let answer = greedy.next().await;
        assert_eq!((&answer["type"], &answer["id"]), (&json!("status"), &json!(id)));
    }
    assert_serves(&mut greedy).await;
}
