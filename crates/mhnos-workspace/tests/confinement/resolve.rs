//! Where the paths of clients lead.

use mhnos_workspace::{Kind, OpenError, PathError, Workspace};

use crate::tree::{Tree, VISIBLE};

fn sample() -> Tree {
    let tree = Tree::new();
    tree.file("app.js", "app");
    tree.file("project/app.js", "project");
    tree.file("project/日本 語.js", "unicode");
    tree.file("bare.js", "");
    tree.directory("bare");
    tree.directory("empty");
    tree.fifo("fifo");
    tree.socket("socket");
    tree.link("inside", "project");
    tree.link("outside", "../..");
    tree.link("outside.js", "../secret");
    tree.link("absolute", "/etc");
    tree.link("round", "round");
    tree.link("magic", "/proc/self/root");
    tree
}

#[test]
fn places_resolve_to_what_processes_see() {
    let tree = sample();
    let check = |path: &str, cwd: Option<&str>, expected: &str, kind: Kind| {
        let base = tree.workspace.resolve_directory(cwd).unwrap();
        let resolved = tree.workspace.resolve(path, &base).unwrap();
        assert_eq!((resolved.visible.as_str(), resolved.kind), (expected, kind), "{path:?} in {cwd:?}");
    };
    check("app.js", None, "/data/ws/app.js", Kind::File);
    check("app.js", Some("/project"), "/data/ws/project/app.js", Kind::File);
    check("app.js", Some("project"), "/data/ws/project/app.js", Kind::File);
    check("app.js", Some(""), "/data/ws/app.js", Kind::File);
    check("/data/ws/app.js", Some("/project"), "/data/ws/app.js", Kind::File);
    check("/workspace/app.js", Some("/project"), "/data/ws/app.js", Kind::File);
    check("/project/app.js", Some("/empty"), "/data/ws/project/app.js", Kind::File);
    check("/project/日本 語.js", None, "/data/ws/project/日本 語.js", Kind::File);
    check("../app.js", Some("/project"), "/data/ws/project/../app.js", Kind::File);
    check("inside/app.js", None, "/data/ws/inside/app.js", Kind::File);
    check(".", Some("/project"), "/data/ws/project", Kind::Directory);
    check("/", None, VISIBLE, Kind::Directory);
}

#[test]
fn what_is_not_in_the_workspace_is_refused_by_name() {
    let tree = sample();
    let check = |path: &str, expected: &str| {
        let error = tree.workspace.resolve(path, &tree.workspace.root()).unwrap_err().to_string();
        assert_eq!(error, expected);
    };
    check("../secret", r#""../secret" leads out of the workspace"#);
    check("project/../../secret", r#""project/../../secret" leads out of the workspace"#);
    check("/../secret", r#""/../secret" leads out of the workspace"#);
    check("/data/ws/../x", r#""/data/ws/../x" leads out of the workspace"#);
    check("outside/secret", r#""outside/secret" leads out of the workspace"#);
    check("outside.js", r#""outside.js" leads out of the workspace"#);
    check("absolute/passwd", r#""absolute/passwd" leads out of the workspace"#);
    check("magic/etc/passwd", r#""magic/etc/passwd" leads out of the workspace"#);
    check("round", r#""round" is behind a symbolic link that leads nowhere"#);
    check("fifo", r#""fifo" is a named pipe, not a file"#);
    check("socket", r#""socket" is a socket, not a file"#);
    check("app.js/x", r#"not a directory: "app.js/x""#);
    check("", "the path is empty");
    check("a\0b", r#""a\0b" contains a NUL byte"#);
    check(
        "/etc/passwd",
        r#"no such file or directory in the workspace: "/etc/passwd" (looked for /data/ws/etc/passwd)"#,
    );
    check(
        "/data/ws-evil/x",
        r#"no such file or directory in the workspace: "/data/ws-evil/x" (looked for /data/ws/data/ws-evil/x)"#,
    );
    let long = "x".repeat(300);
    assert!(matches!(tree.workspace.resolve(&long, &tree.workspace.root()), Err(PathError::TooLong { .. })));
}

#[test]
fn a_working_directory_must_be_one() {
    let tree = sample();
    let error = tree.workspace.resolve_directory(Some("/app.js")).unwrap_err();
    assert_eq!(error.to_string(), r#"not a directory: "/app.js""#);
    let error = tree.workspace.resolve_directory(Some("/gone")).unwrap_err();
    assert!(matches!(error, PathError::Missing { .. }), "{error}");
}

#[test]
fn scripts_are_found_as_their_interpreter_would() {
    let tree = sample();
    let node = ["", ".js", ".json", ".node"];
    let find = |path: &str, extensions: &[&str], directories: bool| {
        tree.workspace.resolve_script(path, &tree.workspace.root(), extensions, directories)
    };
    assert_eq!(find("app", &node, true).unwrap().visible, "/data/ws/app.js");
    assert_eq!(find("app.js", &node, true).unwrap().visible, "/data/ws/app.js");
    assert_eq!(find("bare", &node, true).unwrap().visible, "/data/ws/bare.js");
    assert_eq!(find("empty", &node, true).unwrap().kind, Kind::Directory);
    assert!(matches!(find("empty", &[""], false), Err(PathError::IsADirectory { .. })));
    let missing = find("gone", &node, true).unwrap_err().to_string();
    assert_eq!(missing, r#"no such file or directory in the workspace: "gone" (looked for /data/ws/gone)"#);
    assert!(matches!(find("outside", &node, true), Err(PathError::Escapes { .. })));
}

#[test]
fn reading_takes_regular_files_within_the_bound() {
    let tree = sample();
    let read = |path: &str, max| tree.workspace.read(path, &tree.workspace.root(), max);
    assert_eq!(read("/project/app.js", 7).unwrap(), b"project");
    assert!(matches!(read("/project/app.js", 6), Err(PathError::TooLarge { size: 7, max: 6, .. })));
    assert!(matches!(read("project", 10), Err(PathError::IsADirectory { .. })));
    assert!(matches!(read("fifo", 10), Err(PathError::Special { what: "a named pipe", .. })));
    assert!(matches!(read("socket", 10), Err(PathError::Special { what: "a socket", .. })));
    assert!(matches!(read("outside.js", 10), Err(PathError::Escapes { .. })));
}

#[test]
fn a_workspace_needs_a_directory_and_a_plain_absolute_path() {
    let tree = sample();
    let open = |relative: &str, visible: &str| {
        Workspace::open(std::fs::File::open(tree.path(relative)).unwrap().into(), visible)
    };
    for visible in ["workspace", "", "/a/../b", "/a\0"] {
        assert!(matches!(open("", visible), Err(OpenError::VisiblePath(_))), "{visible:?}");
    }
    assert!(matches!(open("app.js", VISIBLE), Err(OpenError::Directory(_))));
    assert_eq!(open("", "/data//ws/").unwrap().visible_path(), VISIBLE);
}
