//! From a `command` or `cwd` of a request to a place in the workspace.

use std::io::Read;

use rustix::fs::{FileType, OFlags, Stat};

use crate::{PathError, Workspace, path};

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
        Resolved { relative: String::new(), visible: self.visible(""), kind: Kind::Directory }
    }

    /// Resolves a path from a client. An absolute one is taken (1) as it is if it lies in the workspace as
    /// processes see it, (2) after `/workspace` if it starts so, (3) otherwise from the workspace's root:
    /// `/project/app.js` of a browser's file system is `<workspace>/project/app.js`. A relative one is
    /// relative to `base`, a directory that was resolved before.
    pub fn resolve(&self, path: &str, base: &Resolved) -> Result<Resolved, PathError> {
        let relative = path::to_relative(path, self.visible_path(), &base.relative)?;
        self.look_at(path, relative)
    }

    /// Like [`resolve`](Self::resolve) for a `cwd`: what is there must be a directory. `None` and the empty
    /// string mean the root.
    pub fn resolve_directory(&self, path: Option<&str>) -> Result<Resolved, PathError> {
        let Some(path) = path.filter(|path| !path.is_empty()) else { return Ok(self.root()) };
        let resolved = self.resolve(path, &self.root())?;
        match resolved.kind {
            Kind::Directory => Ok(resolved),
            Kind::File => Err(PathError::NotADirectory { path: path.to_owned() }),
        }
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
        let relative = path::to_relative(path, self.visible_path(), &base.relative)?;
        let mut directory = None;
        for extension in extensions {
            match self.look_at(path, format!("{relative}{extension}")) {
                Err(PathError::Missing { .. }) => {}
                // A file beside it that only lacks its extension goes first, as in Node's own search.
                Ok(found) if found.kind == Kind::Directory => directory = directory.or(Some(found)),
                result => return result,
            }
        }
        match directory {
            Some(found) if directories => Ok(found),
            Some(_) => Err(PathError::IsADirectory { path: path.to_owned() }),
            None => Err(PathError::Missing { path: path.to_owned(), visible: self.visible(&relative) }),
        }
    }

    /// Reads a whole regular file of at most `max` bytes; the path is taken as by [`resolve`](Self::resolve).
    pub fn read(&self, path: &str, base: &Resolved, max: u64) -> Result<Vec<u8>, PathError> {
        let relative = path::to_relative(path, self.visible_path(), &base.relative)?;
        let file = self
            .open_inside(&relative, OFlags::RDONLY)
            .map_err(|error| self.refusal(path, &relative, "opened", error))?;
        let unreadable = |source| PathError::Io { path: path.to_owned(), operation: "read", source };
        let stat = rustix::fs::fstat(&file).map_err(|error| unreadable(error.into()))?;
        if kind_of(path, &stat)? == Kind::Directory {
            return Err(PathError::IsADirectory { path: path.to_owned() });
        }
        let mut content = Vec::new();
        // One byte more than allowed shows a file that grew after its size was looked at.
        std::fs::File::from(file)
            .take(max.saturating_add(1))
            .read_to_end(&mut content)
            .map_err(unreadable)?;
        let size = (content.len() as u64).max(stat.st_size as u64);
        if size > max { Err(PathError::TooLarge { path: path.to_owned(), size, max }) } else { Ok(content) }
    }

    fn look_at(&self, given: &str, relative: String) -> Result<Resolved, PathError> {
        let found = self
            .open_inside(&relative, OFlags::PATH)
            .map_err(|error| self.refusal(given, &relative, "opened", error))?;
        let stat =
            rustix::fs::fstat(&found).map_err(|error| self.refusal(given, &relative, "looked at", error))?;
        let kind = kind_of(given, &stat)?;
        Ok(Resolved { visible: self.visible(&relative), relative, kind })
    }
}

/// File or directory; anything else is refused.
pub(crate) fn kind_of(given: &str, stat: &Stat) -> Result<Kind, PathError> {
    let what = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => return Ok(Kind::File),
        FileType::Directory => return Ok(Kind::Directory),
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Symlink => "a symbolic link",
        FileType::Unknown => "a special file",
    };
    Err(PathError::Special { path: given.to_owned(), what })
}
