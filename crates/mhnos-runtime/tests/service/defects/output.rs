//! All that a program writes is sent, whole, in order, and before its exit.

use mhnos_testing::Wire;
use serde_json::json;

use crate::{
    requests::{bash, bash_on_terminal, node, numbers},
    start,
};

/// Defect 2.
#[tokio::test]
async fn a_terminals_output_is_complete_twenty_times() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let expected = numbers(1..=30_000, "\r\n");
    for round in 0..20 {
        let pid = wire.spawn(json!({"processType": "shell"})).await;
        wire.send(&json!({"type": "write", "pid": pid, "data": "seq 1 30000; exit\r"})).await;
        let (stdout, stderr, exit) = wire.run_to_exit(pid).await;
        assert!(stdout.contains(&expected), "round {round}: {:?} {exit}", tail(&stdout));
        assert_eq!((stderr.as_str(), &exit["code"]), ("", &json!(0)), "round {round}");
    }
}

fn tail(text: &str) -> String {
    let from = text.char_indices().rev().nth(200).map_or(0, |(at, _)| at);
    text[from..].to_owned()
}

#[tokio::test]
async fn three_hundred_short_programs_lose_nothing() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    for round in 0..300 {
        let pid = wire.spawn(bash("echo ok")).await;
        let (stdout, stderr, exit) = wire.run_to_exit(pid).await;
        let seen = (stdout.as_str(), stderr.as_str(), &exit["code"]);
        assert_eq!(seen, ("ok\n", "", &json!(0)), "round {round}");
    }
}

/// Defect 4.
#[tokio::test]
async fn characters_survive_however_they_are_read() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let whole = wire.spawn(node("process.stdout.write('€'.repeat(100000))")).await;
    assert!(wire.run_to_exit(whole).await.0 == "€".repeat(100_000));
    let bytewise =
        "const b = Buffer.from('é€😀'); for (const x of b) require('fs').writeSync(1, Buffer.from([x]))";
    let bytewise = wire.spawn(node(bytewise)).await;
    assert_eq!(wire.run_to_exit(bytewise).await.0, "é€😀");
    let invalid = wire.spawn(node("process.stdout.write(Buffer.from([97, 255, 98, 0xe2, 0x82]))")).await;
    assert_eq!(wire.run_to_exit(invalid).await.0, "a\u{fffd}b\u{fffd}");
    // Both streams at once, each cut in the middle of a character.
    let both = "const fs = require('fs'); const b = Buffer.from('€'); for (let i = 0; i < 300; i++) for (const x of b) \
                { fs.writeSync(1, Buffer.from([x])); fs.writeSync(2, Buffer.from([x])); }";
    let both = wire.spawn(node(both)).await;
    let (stdout, stderr, _) = wire.run_to_exit(both).await;
    assert!(stdout == "€".repeat(300) && stderr == "€".repeat(300), "{stdout:?} {stderr:?}");
}

/// Defect 15.
#[tokio::test]
async fn an_ended_program_can_be_read_and_listed() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let pid = wire.spawn(bash("echo last words; exit 3")).await;
    wire.run_to_exit(pid).await;
    let mut late = Wire::connect(server.address()).await;
    let attached = late.request(json!({"type": "attach", "id": 1, "pid": pid})).await;
    assert_eq!(
        (&attached["type"], &attached["status"]),
        (&json!("attached"), &json!("exited")),
        "{attached}"
    );
    let (stdout, _, exit) = late.run_to_exit(pid).await;
    assert_eq!((stdout.as_str(), &exit["code"]), ("last words\n", &json!(3)));
    let list = late.request(json!({"type": "list", "id": 2, "all": true})).await;
    assert_eq!(list["processes"][0]["pid"], pid, "{list}");
    assert_eq!(list["processes"][0]["exit"]["code"], 3, "{list}");
    let list = late.request(json!({"type": "list", "id": 3})).await;
    assert_eq!(list["processes"], json!([]), "{list}");
}

/// Defect 16.
#[tokio::test]
async fn the_exit_comes_after_all_output_even_if_a_descendant_writes_it() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let pid = wire.spawn(bash("(sleep 0.1; echo from the grandchild) & echo from the child")).await;
    let (stdout, ..) = wire.run_to_exit(pid).await;
    assert_eq!(stdout, "from the child\nfrom the grandchild\n");
}

/// Defect 16.
#[tokio::test]
async fn twenty_programs_at_once_tell_everything_before_their_exit() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    for id in 0..20 {
        let mut spawn = match id % 2 {
            0 => bash("head -c 150000 /dev/zero | tr '\\0' x; echo end >&2"),
            _ => bash_on_terminal("head -c 150000 /dev/zero | tr '\\0' x"),
        };
        spawn["type"] = "spawn".into();
        spawn["id"] = id.into();
        wire.send(&spawn).await;
    }
    let mut ended = Vec::new();
    let mut bytes = std::collections::HashMap::new();
    while ended.len() < 20 {
        let message = wire.next().await;
        let pid = message["pid"].as_u64().unwrap_or_else(|| panic!("{message}"));
        assert!(!ended.contains(&pid), "after its exit: {message}");
        match message["type"].as_str() {
            Some("spawned") => assert_eq!(bytes.insert(pid, 0), None, "{message}"),
            Some("exit") => ended.push(pid),
            Some("stdout") => {
                *bytes.get_mut(&pid).expect("spawned first") +=
                    message["data"].as_str().unwrap_or_default().len();
            }
            Some("stderr") => assert_eq!(message["data"], "end\n"),
            _ => panic!("{message}"),
        }
    }
    assert!(bytes.values().all(|bytes| *bytes == 150_000), "{bytes:?}");
}
