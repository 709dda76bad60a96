//! How many bytes the workspace may hold, and how many it holds.
//!
//! The kernel keeps no such count for a directory, so the files are counted, again and again, by what they take on the
//! disk; in between, what is pushed is added. Not counted is what cannot be seen: files that are open and have no name
//! any more, what is below directories that the service may not read, and what is nested more than
//! [`limits::USAGE_DEPTH`] deep.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::fs::{AtFlags, Dir, FileType, OFlags, statat};

use crate::{
    Workspace,
    confined::{Links, open_beneath},
    limits,
};

/// A bound, and what is known of its use.
#[derive(Debug)]
pub(crate) struct Quota {
    limit: u64,
    used: AtomicU64,
}

/// As measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on the disk, each file counted once however many names it has.
    pub used: u64,
    /// The most there may be.
    pub limit: u64,
}

impl Quota {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0) }
    }

    /// What there would be with so many bytes more, if that is too much.
    pub(crate) fn refusal(&self, bytes: u64) -> Option<Usage> {
        let used = self.used.load(Ordering::Relaxed).saturating_add(bytes);
        (used > self.limit).then_some(Usage { used, limit: self.limit })
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Workspace {
    /// Counts what the workspace holds, if it has a quota. Takes as long as to look at every file.
    ///
    /// # Errors
    /// The workspace's own directory cannot be read: what it holds is not known.
    pub fn measure(&self) -> Option<io::Result<Usage>> {
        let quota = self.quota.as_ref()?;
        let mut count = Count::default();
        match self.open_inside("", OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(root) => count.directory(&root, 0),
            Err(errno) => return Some(Err(errno.into())),
        }
        quota.used.store(count.bytes, Ordering::Relaxed);
        Some(Ok(Usage { used: count.bytes, limit: quota.limit }))
    }
}

#[derive(Default)]
struct Count {
    bytes: u64,
    entries: u64,
    /// Files with several names that have been counted, by device and number.
    linked: HashSet<(u64, u64)>,
}

impl Count {
    fn directory(&mut self, directory: &OwnedFd, depth: usize) {
        let Ok(entries) = Dir::read_from(directory) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            self.entries += 1;
            if self.entries > limits::USAGE_ENTRIES {
                return;
            }
            // Gone meanwhile is gone.
            let Ok(stat) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let kind = FileType::from_raw_mode(stat.st_mode);
            let counted =
                kind.is_dir() || stat.st_nlink <= 1 || self.linked.insert((stat.st_dev, stat.st_ino));
            if counted {
                // In units of 512 bytes, whatever the file system's own are (stat(2)).
                self.bytes += stat.st_blocks as u64 * 512;
            }
            if kind.is_dir()
                && depth < limits::USAGE_DEPTH
                && let Ok(below) = open_beneath(
                    directory.as_fd(),
                    name.to_bytes(),
                    OFlags::RDONLY | OFlags::DIRECTORY,
                    Links::None,
                )
            {
                self.directory(&below, depth + 1);
            }
        }
    }
}
