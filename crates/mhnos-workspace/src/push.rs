//! Files from a client into the workspace.
//!
//! A file appears whole or not at all: it is written under a temporary name in its directory and renamed.
//! A new file gets mode 0644; the permissions of a file that was there are kept. Nothing is flushed to the
//! disk: the client still has what it pushed, and a flush for each of thousands of small files would cost
//! more than all the rest.

use std::{
    io::Write,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT},
    io::Errno,
};

use crate::{
    PathError, Workspace, limits, path,
    resolve::{Kind, kind_of},
};

/// Beginning of the names under which files are written before they appear. Left behind only by a service
/// that was killed in the middle; a pull passes over them.
pub(crate) const TEMPORARY_PREFIX: &str = ".mhnos-push-";

/// Permissions of a file that was not there before.
const NEW_FILE: Mode = Mode::from_raw_mode(0o644);
/// Permissions of a directory that was not there before.
const NEW_DIRECTORY: Mode = Mode::from_raw_mode(0o755);

/// One file or directory to be pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Relative to the workspace's root, `/a/b` and `a/b` alike; every name must be plain (not empty, `.`,
    /// `..`). No other mapping applies. Parents are made, [`limits::DEPTH`] at most.
    pub path: &'a str,
    /// What it is.
    pub content: Content<'a>,
    /// Milliseconds since 1970 that a file's modification time is set to. Ignored for directories.
    pub mtime_ms: Option<i64>,
}

/// What an [`Entry`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// A regular file with these bytes.
    File(&'a [u8]),
    /// A directory; one that is there already, with whatever is in it, is fine.
    Directory,
}

/// What became of a push.
#[derive(Debug, Default)]
pub struct PushReport {
    /// Entries that are now as they were pushed.
    pub synced: usize,
    /// The others, in the order of the request.
    pub failures: Vec<PushFailure>,
}

/// One entry that was not written; what was there before is unchanged.
#[derive(Debug)]
pub struct PushFailure {
    /// As the client gave it.
    pub path: String,
    /// Why.
    pub error: PathError,
}

impl Workspace {
    /// Writes each entry, in order; one that fails does not stop the others.
    pub fn push<'a>(&self, entries: impl IntoIterator<Item = Entry<'a>>) -> PushReport {
        let mut report = PushReport::default();
        for entry in entries {
            match self.push_one(&entry) {
                Ok(()) => report.synced += 1,
                Err(error) => report.failures.push(PushFailure { path: entry.path.to_owned(), error }),
            }
        }
        report
    }

    /// Writes one entry. A FIFO, socket, device or directory in a file's way is refused; a symbolic link is
    /// replaced.
    pub fn push_one(&self, entry: &Entry<'_>) -> Result<(), PathError> {
        let names = path::plain_names(entry.path)?;
        let directories =
            names.len() - usize::from(matches!(entry.content, Content::File(_)) && !names.is_empty());
        if directories > limits::DEPTH {
            return Err(path::too_deep(entry.path));
        }
        let Content::File(content) = entry.content else {
            return self.make_directories(entry.path, &names).map(drop);
        };
        let Some((leaf, parents)) = names.split_last() else {
            return Err(PathError::IsADirectory { path: entry.path.to_owned() });
        };
        let size = content.len() as u64;
        let room = self.quota.as_ref().map(|quota| quota.room(size)).transpose().map_err(|over| {
            PathError::Quota { path: entry.path.to_owned(), used: over.used, limit: over.limit }
        })?;
        let target = Target { path: entry.path, parent: self.make_directories(entry.path, parents)?, leaf };
        target.write(content, entry.mtime_ms)?;
        if let Some(room) = room {
            room.fill();
        }
        Ok(())
    }

    /// The directory of these names, made as far as it is not there.
    fn make_directories(&self, given: &str, names: &[&str]) -> Result<OwnedFd, PathError> {
        let open =
            |depth: usize| self.open_inside(&names[..depth].join("/"), OFlags::PATH | OFlags::DIRECTORY);
        let refusal = |depth: usize, error| self.refusal(given, &names[..depth].join("/"), "created", error);
        match open(names.len()) {
            Err(Errno::NOENT) => {}
            result => return result.map_err(|error| refusal(names.len(), error)),
        }
        let mut parent = open(0).map_err(|error| refusal(0, error))?;
        for depth in 1..=names.len() {
            parent = match open(depth) {
                Err(Errno::NOENT) => {
                    // mkdirat follows no link at the last name: where one stands, it answers EEXIST.
                    match rustix::fs::mkdirat(&parent, names[depth - 1], NEW_DIRECTORY) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(refusal(depth, error)),
                    }
                    match open(depth) {
                        Err(Errno::NOENT) => return Err(PathError::Dangling { path: given.to_owned() }),
                        result => result,
                    }
                }
                result => result,
            }
            .map_err(|error| refusal(depth, error))?;
        }
        Ok(parent)
    }
}

/// Where a file is to appear.
struct Target<'a> {
    path: &'a str,
    parent: OwnedFd,
    leaf: &'a str,
}

impl Target<'_> {
    fn write(&self, content: &[u8], mtime_ms: Option<i64>) -> Result<(), PathError> {
        let mode = self.mode()?;
        let (file, name) = self.temporary()?;
        let result = self.fill(file, content, mode, mtime_ms).and_then(|()| {
            rustix::fs::renameat(&self.parent, &name, &self.parent, self.leaf).map_err(|error| match error {
                Errno::ISDIR => PathError::IsADirectory { path: self.path.to_owned() },
                error => self.failed(error),
            })
        });
        if result.is_err() {
            // The first failure is the one to tell; a name that stays is passed over by pulls.
            let _ = rustix::fs::unlinkat(&self.parent, &name, AtFlags::empty());
        }
        result
    }

    /// The permissions the file gets, after making sure that nothing stands there which must not be replaced.
    fn mode(&self) -> Result<Mode, PathError> {
        let stat = match rustix::fs::statat(&self.parent, self.leaf, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(NEW_FILE),
            Err(Errno::NAMETOOLONG) => return Err(path::too_long(self.path)),
            result => result.map_err(|error| self.failed(error))?,
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return Ok(NEW_FILE);
        }
        match kind_of(self.path, &stat)? {
            Kind::Directory => Err(PathError::IsADirectory { path: self.path.to_owned() }),
            // Never the set-user-id bits: they were given to other content.
            Kind::File => Ok(Mode::from_raw_mode(stat.st_mode & 0o777)),
        }
    }

    fn temporary(&self) -> Result<(OwnedFd, String), PathError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut last = Errno::EXIST;
        for _ in 0..limits::TEMPORARY_NAME_TRIES {
            let name = temporary_name().map_err(|error| self.failed(error))?;
            match rustix::fs::openat(&self.parent, &name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => return Ok((file, name)),
                Err(Errno::EXIST) => last = Errno::EXIST,
                Err(error) => return Err(self.failed(error)),
            }
        }
        Err(self.failed(last))
    }

    fn fill(
        &self,
        file: OwnedFd,
        content: &[u8],
        mode: Mode,
        mtime_ms: Option<i64>,
    ) -> Result<(), PathError> {
        let mut file = std::fs::File::from(file);
        file.write_all(content).map_err(|source| self.unwritten(source))?;
        rustix::fs::fchmod(&file, mode).map_err(|error| self.failed(error))?;
        let Some(mtime_ms) = mtime_ms else { return Ok(()) };
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec {
                tv_sec: mtime_ms.div_euclid(1000),
                tv_nsec: mtime_ms.rem_euclid(1000) * 1_000_000,
            },
        };
        rustix::fs::futimens(file.as_fd(), &times).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: Errno) -> PathError {
        self.unwritten(error.into())
    }

    fn unwritten(&self, source: std::io::Error) -> PathError {
        PathError::Io { path: self.path.to_owned(), operation: "written", source }
    }
}

fn temporary_name() -> rustix::io::Result<String> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{TEMPORARY_PREFIX}{:016x}", u64::from_ne_bytes(random)))
}
