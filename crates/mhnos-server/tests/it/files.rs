//! Pushing and pulling.

use std::fs;

use mhnos_testing::{Wire, WireOptions};
use serde_json::json;

use crate::keeper::Service;

#[tokio::test]
async fn pushed_files_are_written_and_wrong_ones_reported() {
    let service = Service::start();
    let mut wire = Wire::connect_as(service.address, WireOptions::modern()).await;
    let answer = wire
        .request(json!({"type": "fsync", "id": 1, "operation": "push", "files": [
            {"path": "/a/b.bin", "kind": "file", "content": [0, 255, 10], "mtime": 1_700_000_000_000_u64},
            {"path": "../evil", "kind": "file", "content": []},
            {"path": "dir", "kind": "directory"},
            {"path": "x", "kind": "file", "content": {"0": 65}},
            null,
        ]}))
        .await;
    assert_eq!((&answer["type"], &answer["status"]), (&json!("fsyncResult"), &json!("success")));
    assert_eq!(
        (&answer["results"]["synced"], &answer["results"]["failed"]),
        (&json!(2), &json!(3)),
        "{answer}"
    );
    let paths: Vec<_> =
        answer["results"]["errors"].as_array().expect("errors").iter().map(|e| &e["path"]).collect();
    assert_eq!(paths, ["../evil", "x", "files[4]"]);
    let root = service.workspace.path();
    assert_eq!(fs::read(root.join("a/b.bin")).expect("written"), [0, 255, 10]);
    assert!(root.join("dir").is_dir());
    assert!(!root.join("x").exists(), "never a silent empty file");
}

#[tokio::test]
async fn a_pull_gives_back_what_is_there() {
    let service = Service::start();
    let root = service.workspace.path();
    let big: Vec<u8> = (0..1_500_000_u32).map(|n| (n % 251) as u8).collect();
    fs::write(root.join("big"), &big).expect("written");
    fs::create_dir_all(root.join("é/empty")).expect("made");
    fs::write(root.join("é/none"), b"").expect("written");
    fs::create_dir(root.join("node_modules")).expect("made");
    fs::write(root.join("node_modules/skipped"), b"x").expect("written");
    let mut wire = Wire::connect_as(service.address, WireOptions::modern()).await;
    let answer = wire.request(json!({"type": "fsync", "id": "pull", "operation": "pull"})).await;
    assert_eq!(
        (&answer["type"], &answer["operation"], &answer["status"]),
        (&json!("fsyncResult"), &json!("pull"), &json!("success"))
    );
    let files = answer["files"].as_array().expect("files");
    let mut paths: Vec<_> = files.iter().map(|file| file["path"].as_str().expect("a path")).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["big", "é/empty", "é/none"]);
    let content =
        files.iter().find(|file| file["path"] == "big").expect("big")["content"].as_array().expect("numbers");
    assert!(content.iter().map(|n| n.as_u64().expect("a number") as u8).eq(big));
    assert_eq!(files.iter().find(|file| file["path"] == "é/none").expect("none")["content"], json!([]));
}

#[tokio::test]
async fn a_pull_that_is_too_large_is_refused_before_anything_is_sent() {
    let service = Service::start();
    let file = fs::File::create(service.workspace.path().join("huge")).expect("made");
    file.set_len(1 << 30).expect("sparse");
    let mut wire = Wire::connect_as(service.address, WireOptions::modern()).await;
    let answer = wire.request(json!({"type": "fsync", "id": "pull", "operation": "pull"})).await;
    assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("TOO_LARGE")), "{answer}");
    assert!(answer["error"].as_str().is_some_and(|text| text.contains("1073741824")), "{answer}");
}
