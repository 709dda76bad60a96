//! A push writes what it says it wrote, inside the workspace and nowhere else.

use mhnos_testing::Wire;
use serde_json::{Value, json};

use crate::{requests::assert_serves, start};

async fn push(wire: &mut Wire, files: Value) -> Value {
    wire.request(json!({"type": "fsync", "id": "push", "operation": "push", "files": files})).await
}

/// Defect 19.
#[tokio::test]
async fn a_push_that_leaves_the_workspace_fails_and_says_so() {
    let server = start();
    let outside = server.workspace().with_file_name("workspace-evil");
    std::fs::create_dir(&outside).expect("beside the workspace");
    std::os::unix::fs::symlink(&outside, server.workspace().join("link")).expect("a link inside");
    std::os::unix::fs::symlink(outside.join("x"), server.workspace().join("file-link"))
        .expect("a link inside");
    let mut wire = Wire::connect(server.address()).await;
    let absolute = outside.join("x").to_string_lossy().into_owned();
    for path in [
        "../workspace-evil/x",
        "/../workspace-evil/x",
        "a/../../workspace-evil/x",
        "/workspace/../workspace-evil/x",
        "link/x",
        "/link/x",
        "/link/../../workspace-evil/x",
        "..",
        "/",
        "",
        "a\u{0}b",
    ] {
        let answer = push(&mut wire, json!([{"path": path, "kind": "file", "content": [65]}])).await;
        assert_eq!(answer["results"]["failed"], 1, "{path:?}: {answer}");
        let named = &answer["results"]["errors"][0]["path"];
        assert!(*named == path || *named == "files[0]", "{path:?}: {answer}");
        assert!(answer["results"]["errors"][0]["error"].is_string(), "{answer}");
    }
    // An absolute path is one from the workspace's root; a link at the end is replaced, not followed.
    let answer = push(&mut wire, json!([{"path": absolute, "kind": "file", "content": "x"}])).await;
    assert_eq!(
        answer["results"]["failed"].as_u64().unwrap_or(9) + answer["results"]["synced"].as_u64().unwrap_or(9),
        1
    );
    push(&mut wire, json!([{"path": "file-link", "kind": "file", "content": "x"}])).await;
    let found: Vec<_> = std::fs::read_dir(&outside).expect("it is there").collect();
    assert!(found.is_empty(), "nothing was written outside: {found:?}");
    assert_serves(&mut wire).await;
}

/// Defect 20.
#[tokio::test]
async fn an_entry_that_cannot_be_written_fails_and_takes_no_other_with_it() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let file = |path: &str, content: Value| json!({"path": path, "kind": "file", "content": content});
    let wrong = [
        json!(null),
        json!(5),
        json!("x"),
        json!({}),
        json!({"path": "/unknown", "kind": "symlink", "content": [65]}),
        json!({"path": "/no-kind", "content": {}}),
        json!({"kind": "file", "content": [65]}),
        json!({"path": 5, "kind": "file", "content": [65]}),
        file("/number-keys", json!({"0": 65, "2": 66})),
        file("/null", json!(null)),
        file("/number", json!(5)),
        file("/large", json!([300])),
        file("/negative", json!([-1])),
        file("/text", json!(["66"])),
        file("/hole", json!([65, null])),
        file("/fraction", json!([1.5])),
    ];
    for entry in wrong {
        let files = json!([file("/before", json!("b")), entry, file("/after", json!([97]))]);
        let answer = push(&mut wire, files).await;
        assert_eq!(answer["type"], "fsyncResult", "{entry}: {answer}");
        let counts = (&answer["results"]["synced"], &answer["results"]["failed"]);
        assert_eq!(counts, (&json!(2), &json!(1)), "{entry}: {answer}");
        for (name, content) in [("before", "b"), ("after", "a")] {
            let path = server.workspace().join(name);
            assert_eq!(std::fs::read_to_string(&path).expect("written"), content, "{entry}");
            std::fs::remove_file(&path).expect("ours");
        }
    }
    let left: Vec<_> = std::fs::read_dir(server.workspace()).expect("it is there").flatten().collect();
    assert!(left.is_empty(), "nothing else was written, no rests of a write either: {left:?}");
}

#[tokio::test]
async fn what_is_pushed_is_there_byte_for_byte_and_can_be_pulled() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let bytes: Vec<u8> = (0..=255).collect();
    let files = json!([
        {"path": "/deep/er/bytes", "kind": "file", "content": bytes, "mtime": 1_700_000_000_000_u64},
        {"path": "text", "kind": "file", "content": "é€😀"},
        {"path": "/directory", "kind": "directory"},
    ]);
    let answer = push(&mut wire, files).await;
    assert_eq!((&answer["status"], &answer["results"]["synced"]), (&json!("success"), &json!(3)), "{answer}");
    assert_eq!(std::fs::read(server.workspace().join("deep/er/bytes")).expect("written"), bytes);
    assert_eq!(std::fs::read_to_string(server.workspace().join("text")).expect("written"), "é€😀");
    assert!(server.workspace().join("directory").is_dir());
    let pulled = wire.request(json!({"type": "fsync", "id": "pull", "operation": "pull"})).await;
    let files = pulled["files"].as_array().expect("files");
    let find = |name: &str| {
        files.iter().find(|file| file["path"] == name).unwrap_or_else(|| panic!("{name}: {pulled}"))
    };
    assert_eq!(find("deep/er/bytes")["mtime"], 1_700_000_000_000_u64, "{pulled}");
    assert_eq!(find("text")["kind"], "file", "{pulled}");
    assert_eq!(find("directory")["kind"], "directory", "{pulled}");
}
