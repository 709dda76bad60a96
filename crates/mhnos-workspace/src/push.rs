//! Files from a client into the workspace.
//!
//! A file appears whole or not at all: it is written under a temporary name in its directory and renamed.
//! A new file gets mode 0644; the permissions of a file that was there are kept. Nothing is flushed to the
//! disk: the client still has what it pushed, and a flush for each of thousands of small files would cost
//! more than all the rest.

use crate::{PathError, Workspace};

/// One file or directory to be pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Relative to the workspace's root, `/a/b` and `a/b` alike; every name must be plain (not empty, `.`,
    /// `..`). No other mapping applies. Parents are made.
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
        let _ = entry;
        todo!()
    }
}
