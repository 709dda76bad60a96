//! What a push writes, and what it refuses.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use mhnos_workspace::{Content, Entry, PathError};

use crate::tree::Tree;

fn file<'a>(path: &'a str, content: &'a [u8]) -> Entry<'a> {
    Entry { path, content: Content::File(content), mtime_ms: None }
}

fn directory(path: &str) -> Entry<'_> {
    Entry { path, content: Content::Directory, mtime_ms: None }
}

#[test]
fn files_arrive_byte_for_byte_with_their_parents() {
    let tree = Tree::new();
    let binary: Vec<u8> = (0..=255).cycle().take(5 * 1024 * 1024).collect();
    let check = |path: &str, relative: &str, content: &[u8]| {
        tree.workspace.push_one(&file(path, content)).unwrap();
        assert_eq!(tree.read(relative), content, "{path:?}");
    };
    check("/project/src/deep/binary", "project/src/deep/binary", &binary);
    check("project/empty", "project/empty", b"");
    check("/grüße/日本/😀 x.txt", "grüße/日本/😀 x.txt", "é€😀".as_bytes());
    check("/workspace/x", "workspace/x", b"not mapped");
    check("/project/empty", "project/empty", b"replaced");
    check(&format!("/{}/x", vec!["d"; 64].join("/")), &format!("{}/x", vec!["d"; 64].join("/")), b"deep");
    assert!(tree.names("project").iter().all(|name| !name.starts_with('.')), "no temporary file stays");
}

#[test]
fn two_thousand_small_files_arrive() {
    let tree = Tree::new();
    let paths: Vec<String> = (0..2000).map(|n| format!("/many/{}/{n}.txt", n % 20)).collect();
    for batch in paths.chunks(5) {
        let report = tree.workspace.push(batch.iter().map(|path| file(path, path.as_bytes())));
        assert_eq!((report.synced, report.failures.len()), (5, 0));
    }
    for path in &paths {
        assert_eq!(tree.read(&path[1..]), path.as_bytes());
    }
}

#[test]
fn directories_are_made_and_may_be_there() {
    let tree = Tree::new();
    tree.file("a/kept", "kept");
    let report = tree.workspace.push(["/a", "/b/c/d", "/b/c/d", "/"].map(directory));
    assert_eq!((report.synced, report.failures.len()), (4, 0));
    assert!(tree.path("b/c/d").is_dir());
    assert_eq!(tree.read("a/kept"), b"kept");
}

#[test]
fn the_modification_time_is_set_and_permissions_are_kept() {
    let tree = Tree::new();
    let check = |mtime_ms: i64, seconds: i64, nanoseconds: i64| {
        let entry = Entry { mtime_ms: Some(mtime_ms), ..file("/timed", b"x") };
        tree.workspace.push_one(&entry).unwrap();
        let meta = fs::metadata(tree.path("timed")).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (seconds, nanoseconds));
    };
    check(1_234_567_890_123, 1_234_567_890, 123_000_000);
    check(0, 0, 0);
    check(-1, -1, 999_000_000);
    assert_eq!(fs::metadata(tree.path("timed")).unwrap().mode() & 0o7777, 0o644);

    let mode = |mode| fs::set_permissions(tree.path("timed"), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o750);
    tree.workspace.push_one(&file("timed", b"y")).unwrap();
    assert_eq!(fs::metadata(tree.path("timed")).unwrap().mode() & 0o7777, 0o750);
    mode(0o4755);
    tree.workspace.push_one(&file("timed", b"z")).unwrap();
    assert_eq!(fs::metadata(tree.path("timed")).unwrap().mode() & 0o7777, 0o755, "set-user-id is not kept");
}

#[test]
fn links_are_replaced_as_leaf_and_followed_only_inside() {
    let tree = Tree::new();
    tree.directory("real");
    tree.link("inside", "real");
    tree.link("leaf", "../secret");
    tree.link("outside", "..");
    tree.link("dangling", "nowhere");
    tree.link("etc", "/etc");

    tree.workspace.push_one(&file("/inside/x", b"through")).unwrap();
    assert_eq!(tree.read("real/x"), b"through");
    tree.workspace.push_one(&file("/leaf", b"replaced")).unwrap();
    assert!(fs::symlink_metadata(tree.path("leaf")).unwrap().is_file());
    assert_eq!(fs::read(tree.beside("secret")).unwrap(), b"secret");

    for path in ["/outside/pwned", "/outside/new/pwned", "/outside/workspace-evil/x", "/etc/mhnos-pwned"] {
        let error = tree.workspace.push_one(&file(path, b"x")).unwrap_err();
        assert!(matches!(error, PathError::Escapes { .. }), "{path}: {error}");
    }
    let error = tree.workspace.push_one(&directory("/outside/made")).unwrap_err();
    assert!(matches!(error, PathError::Escapes { .. }), "{error}");
    let error = tree.workspace.push_one(&file("/dangling/x", b"x")).unwrap_err();
    assert!(matches!(error, PathError::Dangling { .. }), "{error}");
    assert!(!tree.beside("pwned").exists() && !tree.beside("made").exists());
    assert!(fs::read_dir(tree.beside("workspace-evil")).unwrap().next().is_none());
}

#[test]
fn each_bad_entry_is_told_and_the_others_are_written() {
    let tree = Tree::new();
    tree.file("file", "file");
    tree.directory("directory");
    tree.fifo("fifo");
    tree.socket("socket");
    let long = format!("/{}", "x".repeat(256));
    let report = tree.workspace.push([
        file("/good", b"1"),
        file("../secret", b"x"),
        file("/a/../../secret", b"x"),
        file("/../workspace-evil/x", b"x"),
        file("", b"x"),
        file("/", b"x"),
        file("/a//b", b"x"),
        file("/nul\0", b"x"),
        file("/directory", b"x"),
        file("/fifo", b"x"),
        file("/socket", b"x"),
        file("/file/below", b"x"),
        directory("/file"),
        file(&long, b"x"),
        file("/also good", b"2"),
    ]);
    let told: Vec<String> = report.failures.iter().map(|failure| failure.error.to_string()).collect();
    let shown = &long[..80];
    assert_eq!(
        told,
        [
            r#""../secret" is not a plain path: ".." is not a file name"#,
            r#""/a/../../secret" is not a plain path: ".." is not a file name"#,
            r#""/../workspace-evil/x" is not a plain path: ".." is not a file name"#,
            "the path is empty",
            r#"a directory, not a file: "/""#,
            r#""/a//b" is not a plain path: "" is not a file name"#,
            r#""/nul\0" contains a NUL byte"#,
            r#"a directory, not a file: "/directory""#,
            r#""/fifo" is a named pipe, not a file"#,
            r#""/socket" is a socket, not a file"#,
            r#"not a directory: "/file/below""#,
            r#"not a directory: "/file""#,
            &format!("the path is too long: {shown:?}"),
        ]
    );
    assert_eq!(report.synced, 2);
    assert_eq!((tree.read("good"), tree.read("also good")), (b"1".to_vec(), b"2".to_vec()));
    assert_eq!(fs::read(tree.beside("secret")).unwrap(), b"secret");
    assert_eq!(tree.read("file"), b"file");
}
