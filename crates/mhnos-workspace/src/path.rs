//! Paths as text: how a client's path becomes relative. Nothing here decides what lies inside; the kernel
//! does, when the result is opened.

use crate::{PathError, limits};

/// The names in a path, without the empty ones and `.`; `..` stays, because only the kernel knows where it
/// leads.
pub(crate) fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty() && *name != ".")
}

/// The mapping of `command` and `cwd` (see [`Workspace::resolve`](crate::Workspace::resolve)): relative to
/// the root, tidied. `visible` is the workspace as processes see it, `base` is relative to the root.
pub(crate) fn to_relative(path: &str, visible: &str, base: &str) -> Result<String, PathError> {
    check_text(path)?;
    let names: Vec<&str> = components(path).collect();
    let relative = if path.starts_with('/') {
        after(&names, visible).or_else(|| after(&names, "/workspace")).unwrap_or(&names).join("/")
    } else {
        components(base).chain(names).collect::<Vec<_>>().join("/")
    };
    if relative.len() > limits::PATH_BYTES { Err(too_long(path)) } else { Ok(relative) }
}

/// What follows the directory `prefix`, if the path begins with it name by name.
fn after<'n, 'p>(names: &'n [&'p str], prefix: &str) -> Option<&'n [&'p str]> {
    let depth = components(prefix).count();
    let (head, tail) = names.split_at_checked(depth)?;
    components(prefix).eq(head.iter().copied()).then_some(tail)
}

/// A pushed path as its names: plain ones only. Empty for the root ("/").
pub(crate) fn plain_names(path: &str) -> Result<Vec<&str>, PathError> {
    check_text(path)?;
    let relative = path.strip_prefix('/').unwrap_or(path);
    if relative.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<&str> = relative.split('/').collect();
    match names.iter().find(|name| matches!(**name, "" | "." | "..")) {
        Some(name) => Err(PathError::Name { path: path.to_owned(), name: (*name).to_owned() }),
        None => Ok(names),
    }
}

fn check_text(path: &str) -> Result<(), PathError> {
    match path {
        "" => Err(PathError::Empty),
        path if path.contains('\0') => Err(PathError::Nul { path: path.to_owned() }),
        path if path.len() > limits::PATH_BYTES => Err(too_long(path)),
        _ => Ok(()),
    }
}

/// Names only the beginning: the error travels to a client and into logs.
pub(crate) fn too_long(path: &str) -> PathError {
    PathError::TooLong { path: path.chars().take(limits::SHOWN_CHARACTERS).collect() }
}

/// The same for a path of too many directories.
pub(crate) fn too_deep(path: &str) -> PathError {
    let shown = path.chars().take(limits::SHOWN_CHARACTERS).collect();
    PathError::TooDeep { path: shown, max: limits::DEPTH }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_directories_become_relative() {
        let check = |path: &str, base: &str, expected: &str| {
            assert_eq!(to_relative(path, "/data/ws", base).unwrap(), expected, "{path:?} in {base:?}");
        };
        check("app.js", "", "app.js");
        check("app.js", "project", "project/app.js");
        check("./a//b/./c/", "p", "p/a/b/c");
        check("../app.js", "project", "project/../app.js");
        // (1) as processes see it
        check("/data/ws/app.js", "project", "app.js");
        check("/data/ws", "project", "");
        check("/data/ws/../x", "", "../x");
        // (2) after /workspace
        check("/workspace/x.js", "project", "x.js");
        check("/workspace", "", "");
        // (3) from the root
        check("/", "project", "");
        check("/project/app.js", "other", "project/app.js");
        check("/data/ws-evil/x", "", "data/ws-evil/x");
        check("/workspaces/x", "", "workspaces/x");
        check("/data", "", "data");
        check("/../etc/passwd", "", "../etc/passwd");
        check("/ünïcödé/日本.js", "", "ünïcödé/日本.js");
    }

    #[test]
    fn pushed_paths_are_plain() {
        let check =
            |path: &str, expected: &[&str]| assert_eq!(plain_names(path).unwrap(), expected, "{path:?}");
        check("/a/b", &["a", "b"]);
        check("a/b", &["a", "b"]);
        check("/workspace/a", &["workspace", "a"]);
        check("...", &["..."]);
        check("a\\b", &["a\\b"]);
        check("/", &[]);
        for path in ["../x", "a/../b", "a/./b", "a//b", "//a", "a/", "..", "."] {
            assert!(matches!(plain_names(path), Err(PathError::Name { .. })), "{path:?}");
        }
        assert!(matches!(plain_names(""), Err(PathError::Empty)));
        assert!(matches!(plain_names("a\0b"), Err(PathError::Nul { .. })));
        assert!(matches!(plain_names(&"a/".repeat(2100)), Err(PathError::TooLong { .. })));
    }
}
