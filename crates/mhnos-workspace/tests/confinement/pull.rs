//! What a pull gives back, and what it passes over.

use std::{collections::BTreeMap, fs::Permissions, os::unix::fs::PermissionsExt};

use mhnos_workspace::{Content, Entry, PathError, Piece, PullError, PullSettings, Survey};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::tree::Tree;

/// Everything a pull gives: `None` for a directory.
fn pull(tree: &Tree, settings: &PullSettings) -> Result<BTreeMap<String, Option<Vec<u8>>>, PullError> {
    let mut pull = tree.workspace.pull(settings.clone())?;
    let mut found = BTreeMap::new();
    let mut buffer = vec![0; 1000];
    let mut current = (String::new(), Vec::new());
    while let Some(piece) = pull.next(&mut buffer)? {
        match piece {
            Piece::Directory { path } => drop(found.insert(path.to_owned(), None)),
            Piece::File { path, .. } => current = (path.to_owned(), Vec::new()),
            Piece::Content(bytes) => current.1.extend_from_slice(bytes),
            Piece::FileEnd => {
                let (path, content) = std::mem::take(&mut current);
                assert!(found.insert(path, Some(content)).is_none());
            }
        }
    }
    Ok(found)
}

#[test]
fn what_was_pushed_comes_back() {
    let tree = Tree::new();
    let binary: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let entries = [
        ("a/binary", Content::File(&binary)),
        ("a/empty", Content::File(b"")),
        ("日本/😀", Content::File("é".as_bytes())),
        ("leaf", Content::Directory),
        ("deep/er/est", Content::Directory),
        (".dotfile", Content::File(b"dot")),
    ];
    let report = tree.workspace.push(entries.map(|(path, content)| Entry {
        path,
        content,
        mtime_ms: Some(1_000_500),
    }));
    assert_eq!(report.synced, entries.len());
    let expected: BTreeMap<String, Option<Vec<u8>>> = entries
        .map(|(path, content)| match content {
            Content::File(bytes) => (path.to_owned(), Some(bytes.to_vec())),
            Content::Directory => (path.to_owned(), None),
        })
        .into();
    assert_eq!(pull(&tree, &PullSettings::default()).unwrap(), expected);

    let mut pull = tree.workspace.pull(PullSettings::default()).unwrap();
    let mut buffer = [0; 10];
    let first = pull.next(&mut buffer).unwrap();
    assert_eq!(first, Some(Piece::File { path: ".dotfile", size: 3, mtime_ms: 1_000_500 }));
}

#[test]
fn what_is_not_plain_is_passed_over_and_counted() {
    let tree = Tree::new();
    tree.file("kept", "1");
    tree.link("link", "kept");
    tree.link("outside", "/etc");
    tree.fifo("fifo");
    tree.socket("socket");
    std::fs::write(tree.path("").join(std::ffi::OsStr::new("x")), "2").unwrap();
    let not_utf8: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff\xfe");
    std::fs::write(tree.path("").join(not_utf8), "3").unwrap();
    tree.file(".mhnos-push-0123456789abcdef", "left behind");
    let found = pull(&tree, &PullSettings::default()).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["kept", "x"]);
    let survey = tree.workspace.survey(&PullSettings::default()).unwrap();
    assert_eq!(survey, Survey { files: 2, bytes: 2, directories: 0, passed_over: 5 });
}

/// Without root's power over what it may not read, as most services are.
fn unprivileged<T: Send>(body: impl Fn() -> T + Sync) -> T {
    let without = || {
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
        // Of this thread alone.
        set_capabilities(None, sets).unwrap();
        body()
    };
    std::thread::scope(|scope| scope.spawn(without).join().unwrap())
}

#[test]
fn what_may_not_be_read_is_passed_over_and_counted() {
    let tree = Tree::new();
    for path in ["kept", "listed/a", "searched/a", "closed/a", "file"] {
        tree.file(path, "1");
    }
    let modes = [("listed", 0o444), ("searched", 0o111), ("closed", 0), ("file", 0o222)];
    let set =
        |path: &str, mode| std::fs::set_permissions(tree.path(path), Permissions::from_mode(mode)).unwrap();
    for (path, mode) in modes {
        set(path, mode);
    }
    let pulled = unprivileged(|| pull(&tree, &PullSettings::default()));
    let survey = unprivileged(|| tree.workspace.survey(&PullSettings::default()));
    set("", 0o444);
    let of_the_root = unprivileged(|| tree.workspace.survey(&PullSettings::default()));
    set("", 0o700);
    for (path, _) in modes {
        set(path, 0o700);
    }
    assert_eq!(pulled.unwrap().into_keys().collect::<Vec<_>>(), ["kept"]);
    assert_eq!(survey.unwrap(), Survey { files: 1, bytes: 1, directories: 0, passed_over: 4 });
    let error = of_the_root.unwrap_err();
    assert!(matches!(&error, PullError::Io { path, .. } if path == "/"), "{error}");
}

#[test]
fn skipped_names_are_skipped_wherever_they_stand() {
    let tree = Tree::new();
    for path in ["node_modules/a", "p/node_modules/b", ".git/HEAD", "p/dist/c", "p/.cache/d", "p/distance"] {
        tree.file(path, "x");
    }
    tree.file("only/node_modules/e", "x");
    let check = |settings: &PullSettings, expected: &[&str]| {
        assert_eq!(pull(&tree, settings).unwrap().into_keys().collect::<Vec<_>>(), expected);
    };
    check(&PullSettings::default(), &["only", "p/distance"]);
    let settings = PullSettings { skip: vec!["p".to_owned()], ..PullSettings::default() };
    check(&settings, &[".git/HEAD", "node_modules/a", "only/node_modules/e"]);
}

#[test]
fn bounds_are_named_before_anything_is_sent() {
    let tree = Tree::new();
    tree.file("a", vec![0; 600]);
    tree.file("b/c", vec![0; 500]);
    let settings = PullSettings { max_bytes: 1000, ..PullSettings::default() };
    let told = tree.workspace.survey(&settings).unwrap_err().to_string();
    assert_eq!(told, "the workspace has 1100 bytes in 2 files, more than the 1000 bytes one pull can carry");
    assert!(matches!(pull(&tree, &settings), Err(PullError::TooLarge { size: 1100, max: 1000, .. })));

    let settings = PullSettings { max_entries: 2, ..PullSettings::default() };
    assert!(matches!(tree.workspace.survey(&settings), Err(PullError::TooMany { max: 2 })));

    let deep = vec!["d"; 70].join("/");
    tree.directory(&deep);
    let error = tree.workspace.survey(&PullSettings::default()).unwrap_err();
    assert!(matches!(error, PullError::TooDeep { max: 64, .. }), "{error}");
}

#[test]
fn what_can_be_pushed_can_be_pulled_however_deep() {
    let tree = Tree::new();
    let deepest = vec!["d"; 64].join("/");
    let file =
        |path: &str| tree.workspace.push_one(&Entry { path, content: Content::File(b"x"), mtime_ms: None });
    let directory =
        |path: &str| tree.workspace.push_one(&Entry { path, content: Content::Directory, mtime_ms: None });
    file(&format!("{deepest}/f")).unwrap();
    directory(&format!("/e/{}", &deepest[2..])).unwrap();
    for error in [
        file(&format!("{deepest}/d/f")).unwrap_err(),
        directory(&format!("{deepest}/d")).unwrap_err(),
        file(&format!("{}f", "d/".repeat(200))).unwrap_err(),
    ] {
        assert!(matches!(error, PathError::TooDeep { max: 64, .. }), "{error}");
    }
    assert!(!tree.path(&format!("{deepest}/d")).exists(), "nothing is made of what is refused");
    tree.workspace.survey(&PullSettings::default()).unwrap();
}

#[test]
fn a_file_that_changes_meanwhile_never_gives_more_than_it_said() {
    let tree = Tree::new();
    tree.file("grows", "12345");
    tree.file("shrinks", "12345");
    let mut pull = tree.workspace.pull(PullSettings::default()).unwrap();
    let mut buffer = [0; 100];
    assert!(matches!(pull.next(&mut buffer).unwrap(), Some(Piece::File { path: "grows", size: 5, .. })));
    tree.file("grows", "1234567890");
    assert_eq!(pull.next(&mut buffer).unwrap(), Some(Piece::Content(b"12345")));
    assert_eq!(pull.next(&mut buffer).unwrap(), Some(Piece::FileEnd));
    assert!(matches!(pull.next(&mut buffer).unwrap(), Some(Piece::File { path: "shrinks", size: 5, .. })));
    tree.file("shrinks", "1");
    assert_eq!(pull.next(&mut buffer).unwrap(), Some(Piece::Content(b"1")));
    assert_eq!(pull.next(&mut buffer).unwrap(), Some(Piece::FileEnd));
    assert_eq!(pull.next(&mut buffer).unwrap(), None);
    assert_eq!(pull.carried(), Survey { files: 2, bytes: 10, directories: 0, passed_over: 0 });
}
