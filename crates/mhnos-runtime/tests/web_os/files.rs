//! Files both ways through the socket, as the Web OS sends and takes them: byte for byte, or a clear error.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use mhnos_testing::{Server, Wire, WireOptions};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::options;

/// Entries of one message, as the page sends them.
const BATCH: usize = 5;

async fn page(server: &Server) -> Wire {
    Wire::connect_as(server.address(), WireOptions::browser()).await
}

/// What the page's promise becomes: the first answer of a type that it knows.
async fn resolved(wire: &mut Wire, request: Value) -> Value {
    wire.send(&request).await;
    let known = |answer: &Value| answer["type"] == "status" || answer["type"] == "error";
    wire.next_where(|answer| answer["id"] == request["id"] && known(answer)).await
}

async fn push(wire: &mut Wire, files: Value) -> Value {
    resolved(wire, json!({"type": "fsync", "id": "push", "operation": "push", "files": files})).await
}

async fn push_one(wire: &mut Wire, path: &str, content: Value) -> Value {
    push(wire, json!([{"path": path, "kind": "file", "content": content, "mtime": 1_700_000_000_123_u64}]))
        .await
}

/// Pulls, and checks that both messages say the same: each file with its bytes, each empty directory with none.
async fn pull(wire: &mut Wire) -> BTreeMap<String, Option<Vec<u8>>> {
    let answer = resolved(wire, json!({"type": "fsync", "id": "pull", "operation": "pull"})).await;
    assert_eq!(answer["type"], "status", "{answer}");
    let own = wire.next_where(|other| other["type"] == "fsyncResult" && other["id"] == "pull").await;
    assert_eq!(own["files"], answer["files"]);
    let files = answer["files"].as_array().expect("an array").iter();
    files.map(|file| (file["path"].as_str().expect("a path").to_owned(), content(file))).collect()
}

fn content(file: &Value) -> Option<Vec<u8>> {
    if file["kind"] == "directory" {
        assert!(file["content"].is_null(), "{file}");
        return None;
    }
    let numbers = file["content"].as_array().expect("an array of numbers");
    Some(numbers.iter().map(|byte| u8::try_from(byte.as_u64().expect("a number")).expect("a byte")).collect())
}

/// Bytes of every value, different for every seed.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test]
async fn points_27_29_a_large_tree_goes_both_ways_byte_for_byte() {
    let server = Server::start(options());
    let mut wire = page(&server).await;
    let mut tree: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
    for number in 0..2000_u64 {
        let path = format!("src/part {}/файл-{number}.bin", number % 40);
        tree.insert(path, Some(bytes(number, (number % 1500) as usize)));
    }
    tree.insert("big.bin".to_owned(), Some(bytes(4711, 5 << 20)));
    tree.insert("every byte".to_owned(), Some((0..=255).collect()));
    tree.insert("empty".to_owned(), Some(Vec::new()));
    tree.insert("a/b/c/d/e/f/g/deep".to_owned(), Some(b"deep".to_vec()));
    tree.insert("日本語/🦀 e\u{301}".to_owned(), Some("ünïcödé".into()));
    tree.insert("nothing/here".to_owned(), None);
    let entries: Vec<Value> = tree
        .iter()
        .map(|(path, content)| match content {
            None => json!({"path": format!("/{path}"), "kind": "directory"}),
            Some(bytes) => {
                json!({"path": format!("/{path}"), "kind": "file", "content": bytes, "mtime": 1_700_000_000_123_u64})
            }
        })
        .collect();
    for batch in entries.chunks(BATCH) {
        let answer = push(&mut wire, json!(batch)).await;
        assert_eq!(
            (&answer["type"], &answer["results"]["synced"]),
            (&json!("status"), &json!(batch.len())),
            "{answer}"
        );
    }
    for (path, content) in tree.iter().filter_map(|(path, content)| Some((path, content.as_ref()?))) {
        let file = server.workspace().join(path);
        assert!(std::fs::read(&file).expect("pushed") == *content, "{path} differs on disk");
        let time = file.metadata().and_then(|meta| meta.modified()).expect("a time");
        let since = time.duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        assert_eq!(since.as_millis(), 1_700_000_000_123, "{path}");
    }
    let pulled = pull(&mut wire).await;
    assert_eq!(pulled.keys().collect::<Vec<_>>(), tree.keys().collect::<Vec<_>>());
    let differ: Vec<_> =
        tree.iter().filter(|(path, content)| pulled[*path] != **content).map(|(path, _)| path).collect();
    assert!(differ.is_empty(), "{differ:?}");
}

#[tokio::test]
async fn points_27_28_a_path_that_leads_elsewhere_is_an_error_and_writes_nothing() {
    let server = Server::start(options());
    let workspace = server.workspace();
    let outside = workspace.parent().expect("in a directory of the test").join("workspace-evil");
    std::fs::create_dir(&outside).expect("a directory of the test");
    std::fs::write(outside.join("kept"), "kept").expect("a directory of the test");
    symlink(&outside, workspace.join("link-out")).expect("a link");
    symlink(outside.join("kept"), workspace.join("leaf-out")).expect("a link");
    symlink("inside", workspace.join("link-in")).expect("a link");
    server.write("inside/file", "before");
    let everybody = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(workspace.join("inside"), everybody).expect("the test's own");
    let fifo = std::process::Command::new("mkfifo").arg(workspace.join("fifo")).status().expect("mkfifo");
    assert!(fifo.success());

    let mut wire = page(&server).await;
    for path in [
        "/../workspace-evil/kept",
        "../workspace-evil/new",
        "/a/../../workspace-evil/new",
        "/link-out/new",
        "/fifo",
        "/",
        "",
    ] {
        let answer = push_one(&mut wire, path, json!([1, 2, 3])).await;
        assert_eq!(answer["type"], "error", "{path}: {answer}");
        let named = if path.is_empty() { "files[0]" } else { path };
        assert!(answer["error"].as_str().is_some_and(|text| text.contains(named)), "{path}: {answer}");
    }
    // An absolute path is one of the page's own file system, wherever it points on the host.
    assert_eq!(push_one(&mut wire, "/etc/passwd", json!([1, 2, 3])).await["type"], "status");
    assert_eq!(std::fs::read(workspace.join("etc/passwd")).expect("written"), [1, 2, 3]);
    assert_ne!(std::fs::read("/etc/passwd").expect("the host's"), [1, 2, 3]);
    // A link as the last name is replaced, one to inside is followed as a parent.
    assert_eq!(push_one(&mut wire, "/leaf-out", json!([4])).await["type"], "status");
    assert!(workspace.join("leaf-out").symlink_metadata().expect("there").is_file());
    assert_eq!(push_one(&mut wire, "/link-in/file", json!([5])).await["type"], "status");
    assert_eq!(std::fs::read(workspace.join("inside/file")).expect("written"), [5]);
    let names: Vec<_> =
        std::fs::read_dir(&outside).expect("there").map(|entry| entry.expect("one").file_name()).collect();
    assert_eq!(names, ["kept"]);
    assert_eq!(std::fs::read(outside.join("kept")).expect("there"), b"kept");
    // Neither links nor the pipe come back, and nothing hangs on them.
    let pulled: Vec<_> = pull(&mut wire).await.into_keys().collect();
    assert_eq!(pulled, ["etc/passwd", "inside/file", "leaf-out"]);
}

#[tokio::test]
async fn point_28_what_is_no_file_is_an_error_and_never_an_empty_file() {
    let server = Server::start(options());
    let mut wire = page(&server).await;
    let file = |fields: Value| {
        let mut entry = json!({"path": "/wrong", "kind": "file", "mtime": 0});
        entry.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        entry
    };
    let wrong = [
        Value::Null,
        json!("/wrong"),
        json!([]),
        file(json!({})),
        file(json!({"content": null})),
        file(json!({"content": {"0": 65}})),
        file(json!({"content": {"type": "Buffer", "data": [65]}})),
        file(json!({"content": 65})),
        file(json!({"content": [65, 256]})),
        file(json!({"content": [-1]})),
        file(json!({"content": ["65"]})),
        file(json!({"content": [null]})),
        file(json!({"content": [1.5]})),
        file(json!({"content": [[65]]})),
        file(json!({"content": "not base64!", "encoding": "base64"})),
        file(json!({"content": [65], "kind": "symlink"})),
        file(json!({"content": [65], "kind": null})),
        file(json!({"content": [65], "mtime": "yesterday"})),
        file(json!({"content": [65], "path": null})),
        file(json!({"content": [65], "path": 7})),
        file(json!({"content": [65], "path": "/wrong\u{0}"})),
    ];
    for (number, entry) in wrong.iter().enumerate() {
        let beside = format!("beside-{number}");
        let good = json!({"path": beside, "kind": "file", "content": [66], "mtime": 0});
        let answer = push(&mut wire, json!([entry, good])).await;
        assert_eq!(answer["type"], "error", "{entry}: {answer}");
        assert!(
            answer["error"].as_str().is_some_and(|text| text.contains("not written")),
            "{entry}: {answer}"
        );
        assert!(!server.workspace().join("wrong").exists(), "{entry}");
        assert_eq!(std::fs::read(server.workspace().join(&beside)).expect("written"), b"B", "{entry}");
    }
    for request in [
        json!({"type": "fsync", "id": 1, "operation": "push", "files": {"0": 1}}),
        json!({"type": "fsync", "id": 1, "operation": "push"}),
        json!({"type": "fsync", "id": 1, "operation": "both"}),
        json!({"type": "fsync", "id": 1}),
    ] {
        assert_eq!(resolved(&mut wire, request.clone()).await["type"], "error", "{request}");
    }
}

#[tokio::test]
async fn point_29_a_pull_passes_over_what_is_set_and_names_the_size_beyond_its_bound() {
    let server = Server::start(options());
    for path in ["kept/file", "node_modules/x", "kept/.git/x", "kept/dist/x", ".cache/x", "target/x", ".env"]
    {
        server.write(path, "x");
    }
    let mut wire = page(&server).await;
    assert_eq!(pull(&mut wire).await.into_keys().collect::<Vec<_>>(), [".env", "kept/file", "target/x"]);
    let large = std::fs::File::create(server.workspace().join("large")).expect("a file");
    large.set_len(33 << 20).expect("a sparse file");
    let answer = resolved(&mut wire, json!({"type": "fsync", "id": 1, "operation": "pull"})).await;
    assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("TOO_LARGE")), "{answer}");
    let size = ((33 << 20) + 3).to_string();
    assert!(answer["error"].as_str().is_some_and(|text| text.contains(&size)), "{answer}");

    let other = Server::start(options().workspace(server.workspace()).env("MHNOS_PULL_SKIP", "large,target"));
    let mut wire = page(&other).await;
    let pulled: Vec<_> = pull(&mut wire).await.into_keys().collect();
    assert_eq!(pulled, [".cache/x", ".env", "kept/.git/x", "kept/dist/x", "kept/file", "node_modules/x"]);
}

#[tokio::test]
async fn point_29_a_large_pull_is_never_in_memory_as_a_whole() {
    const SIZE: u64 = 24 << 20;
    const ALLOWED_KIB: u64 = 8 << 10;
    let server = Server::start(options());
    let large = std::fs::File::create(server.workspace().join("large")).expect("a file");
    large.set_len(SIZE).expect("a sparse file");
    let mut wire = page(&server).await;
    let before = peak_kib(&server);
    wire.send(&json!({"type": "fsync", "id": 1, "operation": "pull"})).await;
    for _ in 0..2 {
        let Some(Message::Text(text)) = wire.next_frame().await else { panic!("a text message") };
        // "0," for each byte, without the last comma.
        assert!(text.len() as u64 > 2 * SIZE, "{} bytes", text.len());
        assert!(text.ends_with("\"id\":1}"), "{}", &text[text.len() - 100..]);
    }
    let grown = peak_kib(&server) - before;
    assert!(grown < ALLOWED_KIB, "the bridge grew by {grown} KiB for a message of {} KiB", 2 * SIZE / 1024);
}

/// The most memory the bridge ever had, in KiB.
fn peak_kib(server: &Server) -> u64 {
    let bridge = server.descendants().into_iter().find(|process| process.command.contains(" bridge "));
    let status = format!("/proc/{}/status", bridge.expect("a bridge").os_pid);
    let text = std::fs::read_to_string(&status).expect("it lives");
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("proc(5)");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

#[tokio::test]
async fn a_large_push_delays_nobody_elses_ping() {
    let server = Server::start(options());
    let (mut pushing, mut pinging) = (page(&server).await, Wire::connect(server.address()).await);
    let large = json!([{"path": "/large", "kind": "file", "content": bytes(1, 5 << 20), "mtime": 0}]);
    let push = push(&mut pushing, large);
    let mut push = std::pin::pin!(push);
    let mut answered = 0;
    let answer = loop {
        tokio::select! {
            biased;
            answer = &mut push => break answer,
            pong = pinging.request(json!({"type": "ping", "id": answered})) => {
                assert_eq!(pong["type"], "pong");
                answered += 1;
            }
        }
    };
    assert_eq!(answer["type"], "status", "{answer}");
    assert!(answered >= 3, "only {answered} pings were answered while the push went on");
}

#[tokio::test]
async fn a_program_works_with_what_was_pushed_and_its_changes_are_pulled() {
    let server = Server::start(options());
    let mut wire = page(&server).await;
    // All in one burst: requests of one connection take effect in order.
    let script = "printf more >> data; mkdir made; printf new > made/file; printf '\\0\\377' > made/binary";
    let files = json!([
        {"path": "/project/run.sh", "kind": "file", "content": script.as_bytes(), "mtime": 0},
        {"path": "/project/data", "kind": "file", "content": b"some ", "mtime": 0},
    ]);
    wire.send(&json!({"type": "fsync", "id": "push", "operation": "push", "files": files})).await;
    let options = json!({"cwd": "/project", "pty": false});
    let pid = wire
        .spawn(
            json!({"processType": "shell", "command": "/bin/bash", "args": ["run.sh"], "options": options}),
        )
        .await;
    wire.send(&json!({"type": "attach", "id": "attach", "pid": pid})).await;
    let (stdout, stderr, exit) = wire.run_to_exit(pid).await;
    assert_eq!((stdout.as_str(), stderr.as_str(), &exit["code"]), ("", "", &json!(0)));
    let pulled = pull(&mut wire).await;
    let file = |path: &str| pulled[path].as_deref().expect("a file");
    assert_eq!(file("project/data"), b"some more");
    assert_eq!(file("project/made/file"), b"new");
    assert_eq!(file("project/made/binary"), b"\0\xff");
    assert!(Path::new(&server.workspace().join("project/made")).is_dir());
}
