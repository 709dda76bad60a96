//! What must hold for any path from a client. The target of `fuzz/` calls this, and so does a test with the corpus
//! and simple changes of it.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::PathBuf,
    sync::OnceLock,
};

use crate::{Content, Entry, Workspace};

/// What a file outside holds.
const SECRET: &[u8] = b"outside";

/// A workspace with links of every kind, beside a file it must never reach.
struct Place {
    root: PathBuf,
    outside: PathBuf,
    workspace: Workspace,
}

fn place() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(|| {
        let base = own_directory();
        let root = base.join("w");
        fs::create_dir_all(root.join("a/b")).expect("a directory");
        let outside = base.join("outside");
        fs::write(&outside, SECRET).expect("a file");
        fs::write(root.join("f"), b"inside").expect("a file");
        fs::write(root.join("a/g.js"), b"inside").expect("a file");
        let outside_text = outside.display().to_string();
        for (name, target) in [
            ("up", ".."),
            ("out", "../outside"),
            ("a/out", "../../outside"),
            ("far", outside_text.as_str()),
            ("in", "a"),
            ("a/top", ".."),
            ("loop", "loop"),
            ("proc", "/proc/self/root"),
        ] {
            symlink(target, root.join(name)).expect("a link");
        }
        let dir = fs::File::open(&root).expect("the root");
        let workspace = Workspace::open(dir.into(), "/data/ws").expect("a workspace");
        Place { root, outside, workspace }
    })
}

/// Beside the program, and so in a target directory: a fuzzer ends without any cleaning up. What those that are gone have
/// left is removed.
fn own_directory() -> PathBuf {
    const PREFIX: &str = "fuzzed-workspace-";
    let program = std::env::current_exe().expect("a program");
    let place = program.parent().expect("a directory");
    for entry in fs::read_dir(place).expect("a directory").flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if owner.is_some_and(|pid| !fs::exists(format!("/proc/{pid}")).unwrap_or(true)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let own = place.join(format!("{PREFIX}{}", std::process::id()));
    let _ = fs::remove_dir_all(&own);
    own
}

/// Two paths, parted by a line end: where to start, and what is asked for.
pub fn path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (base, path) = text.split_once('\n').unwrap_or(("", text));
    let Place { root, outside, workspace } = place();
    let outside_is_whole = || {
        let left = fs::read(outside).expect("it is there");
        assert_eq!(left, SECRET, "written through {path:?}");
    };
    let inside = |relative: &str| {
        let real = fs::canonicalize(root.join(relative)).expect("it was there");
        assert!(real.starts_with(root), "{path:?} leads to {}", real.display());
    };
    let base = workspace.resolve_directory(Some(base)).unwrap_or_else(|_| workspace.root());
    inside(&base.relative);
    if let Ok(found) = workspace.resolve_script(path, &base, &["", ".js"], true) {
        inside(&found.relative);
        assert!(found.visible.starts_with("/data/ws"));
    }
    if let Ok(content) = workspace.read(path, &base, 100) {
        assert_ne!(content, SECRET, "read through {path:?}");
    }
    if path.len() < 64 {
        let entry = Entry { path, content: Content::File(b"pushed"), mtime_ms: Some(-1) };
        if workspace.push_one(&entry).is_ok() {
            let pushed = root.join(path.trim_start_matches('/'));
            let meta = fs::symlink_metadata(&pushed).expect("it is where it was pushed");
            assert!(meta.is_file() && meta.size() == 6, "{path:?}");
            inside(path.trim_start_matches('/'));
            fs::remove_file(&pushed).expect("ours");
            restore(root);
        }
        outside_is_whole();
    }
}

/// Puts back what a push has replaced: each run starts from the same place.
fn restore(root: &std::path::Path) {
    for (name, target) in
        [("up", ".."), ("out", "../outside"), ("loop", "loop"), ("in", "a"), ("a/top", "..")]
    {
        if fs::symlink_metadata(root.join(name)).is_err() {
            let _ = symlink(target, root.join(name));
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_path_surprises() {
        mhnos_testing::replay("path", super::path);
    }
}
