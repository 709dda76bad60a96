//! From a `command` or `cwd` of a request to a place in the workspace.

use crate::{PathError, Workspace};

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
}

/// A place in the workspace that existed when it was resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Relative to the workspace's root, without a leading slash; empty for the root itself.
    pub relative: String,
    /// Absolute, as processes see it.
    pub visible: String,
    /// File or directory.
    pub kind: Kind,
}

impl Workspace {
    /// The root itself: what relative paths are relative to when no `cwd` is given.
    pub fn root(&self) -> Resolved {
        todo!()
    }

    /// Resolves a path from a client. An absolute one is taken (1) as it is if it lies in the workspace as
    /// processes see it, (2) after `/workspace` if it starts so, (3) otherwise from the workspace's root:
    /// `/project/app.js` of a browser's file system is `<workspace>/project/app.js`. A relative one is
    /// relative to `base`, a directory that was resolved before.
    pub fn resolve(&self, path: &str, base: &Resolved) -> Result<Resolved, PathError> {
        let _ = (path, base);
        todo!()
    }

    /// Like [`resolve`](Self::resolve) for a `cwd`: what is there must be a directory. `None` and the empty
    /// string mean the root.
    pub fn resolve_directory(&self, path: Option<&str>) -> Result<Resolved, PathError> {
        let _ = path;
        todo!()
    }

    /// Like [`resolve`](Self::resolve) for a script: each of `extensions` is tried in order (the empty one
    /// stands for the path as it is), as interpreters do that let `.js` be left out. A directory is taken
    /// only if `directories` says that the interpreter can run one.
    pub fn resolve_script(
        &self,
        path: &str,
        base: &Resolved,
        extensions: &[&str],
        directories: bool,
    ) -> Result<Resolved, PathError> {
        let _ = (path, base, extensions, directories);
        todo!()
    }

    /// Reads a whole regular file of at most `max` bytes; the path is taken as by [`resolve`](Self::resolve).
    pub fn read(&self, path: &str, base: &Resolved, max: u64) -> Result<Vec<u8>, PathError> {
        let _ = (path, base, max);
        todo!()
    }
}
