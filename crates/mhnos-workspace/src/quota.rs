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
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, OFlags, statat},
    io::Errno,
};

use crate::{
    Workspace,
    confined::{Links, open_beneath},
    limits,
};

/// A bound, and what is known of its use.
#[derive(Debug)]
pub(crate) struct Quota {
    limit: u64,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// By the last count.
    counted: u64,
    /// By all pushes, those that are being written with them.
    reserved: u64,
    /// By those that have been written.
    written: u64,
    /// Of those, what the last count has seen for certain.
    seen: u64,
}

/// Room for what is being written; given back if it is dropped.
#[derive(Debug)]
pub(crate) struct Room<'q> {
    quota: &'q Quota,
    bytes: u64,
    written: bool,
}

/// As measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on the disk, each file counted once however many names it has.
    pub used: u64,
    /// The most there may be.
    pub limit: u64,
}

impl Known {
    fn used(&self) -> u64 {
        self.counted.saturating_add(self.reserved - self.seen)
    }
}

impl Quota {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, known: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for so many bytes more, or what there would be with them, if that is too much.
    pub(crate) fn room(&self, bytes: u64) -> Result<Room<'_>, Usage> {
        let mut known = self.lock();
        let used = known.used().saturating_add(bytes);
        if used > self.limit {
            return Err(Usage { used, limit: self.limit });
        }
        known.reserved += bytes;
        Ok(Room { quota: self, bytes, written: false })
    }

    /// Takes notice of a count that began when so much had been written: it may have missed the rest.
    fn take_count(&self, written: u64, bytes: u64) {
        let mut known = self.lock();
        (known.seen, known.counted) = (written, bytes);
    }
}

impl Room<'_> {
    pub(crate) fn fill(mut self) {
        self.written = true;
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let mut known = self.quota.lock();
        if self.written {
            known.written += self.bytes;
        } else {
            known.reserved -= self.bytes;
        }
    }
}

impl Workspace {
    /// Counts what the workspace holds, if it has a quota. Takes as long as to look at every file.
    ///
    /// # Errors
    /// The workspace's own directory cannot be read, or this process has no descriptor or memory left to look at all of
    /// it: what it holds is not known.
    pub fn measure(&self) -> Option<io::Result<Usage>> {
        let quota = self.quota.as_ref()?;
        let written = quota.lock().written;
        let mut count = Count::default();
        let root = self.open_inside("", OFlags::RDONLY | OFlags::DIRECTORY);
        if let Err(errno) = root.and_then(|root| count.directory(&root, 0)) {
            return Some(Err(errno.into()));
        }
        quota.take_count(written, count.bytes);
        Some(Ok(Usage { used: count.bytes, limit: quota.limit }))
    }
}

#[derive(Default)]
struct Count {
    bytes: u64,
    /// Files with several names that have been counted, by device and number.
    linked: HashSet<(u64, u64)>,
}

impl Count {
    /// Whether a file has not been met by another of its names, as far as those are remembered.
    fn is_new(&mut self, file: (u64, u64)) -> bool {
        !self.linked.contains(&file)
            && (self.linked.len() >= limits::USAGE_LINKED || self.linked.insert(file))
    }

    fn directory(&mut self, directory: &OwnedFd, depth: usize) -> rustix::io::Result<()> {
        let Some(entries) = seen(Dir::read_from(directory))? else { return Ok(()) };
        for entry in entries {
            let Some(entry) = seen(entry)? else { continue };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            // Gone meanwhile is gone.
            let Some(stat) = seen(statat(directory, name, AtFlags::SYMLINK_NOFOLLOW))? else { continue };
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind.is_dir() || stat.st_nlink <= 1 || self.is_new((stat.st_dev, stat.st_ino)) {
                // In units of 512 bytes, whatever the file system's own are (stat(2)).
                self.bytes += stat.st_blocks as u64 * 512;
            }
            if kind.is_dir()
                && depth < limits::USAGE_DEPTH
                && let Some(below) = seen(open_beneath(
                    directory.as_fd(),
                    name.to_bytes(),
                    OFlags::RDONLY | OFlags::DIRECTORY,
                    Links::None,
                ))?
            {
                self.directory(&below, depth + 1)?;
            }
        }
        Ok(())
    }
}

/// What cannot be seen does not count. That nothing is left to see it with says nothing of it.
fn seen<T>(looked: rustix::io::Result<T>) -> rustix::io::Result<Option<T>> {
    match looked {
        Err(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => Err(errno),
        looked => Ok(looked.ok()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::fd::AsRawFd};

    use mhnos_testing::Scratch;
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    /// A process of its own, as the limit is one of the whole process.
    #[test]
    fn what_no_descriptor_is_left_to_look_at_is_an_error_and_not_nothing() {
        if !mhnos_testing::alone(
            "quota::tests::what_no_descriptor_is_left_to_look_at_is_an_error_and_not_nothing",
        ) {
            return;
        }
        let scratch = Scratch::new();
        fs::create_dir_all(scratch.path().join("a/b")).expect("make");
        fs::write(scratch.path().join("a/b/file"), vec![7; 1 << 20]).expect("write");
        let root = OwnedFd::from(fs::File::open(scratch.path()).expect("open"));
        let workspace = Workspace::open(root, "/workspace").expect("open").with_quota(1 << 30);
        let counted = || workspace.measure().expect("it has a quota");
        let all = counted().expect("readable");
        let next = fs::File::open(scratch.path()).expect("open").as_fd().as_raw_fd() as u64;
        let limit = getrlimit(Resource::Nofile);
        for room in 0..6 {
            setrlimit(Resource::Nofile, Rlimit { current: Some(next + room), ..limit }).expect("fewer");
            let error = counted().expect_err("there is more");
            assert_eq!(error.raw_os_error(), Some(Errno::MFILE.raw_os_error()), "{room}");
            let refused = workspace.quota.as_ref().expect("it has one").room(all.limit).map(drop);
            assert_eq!(
                refused.map_err(|usage| usage.used),
                Err(all.used + all.limit),
                "what was known stays"
            );
        }
        setrlimit(Resource::Nofile, limit).expect("as before");
        assert_eq!(counted().expect("readable"), all);
    }

    #[test]
    fn pushes_at_the_same_time_have_no_more_room_than_there_is() {
        let quota = Quota::new(100);
        let first = quota.room(60).expect("room");
        assert_eq!(quota.room(60).expect_err("for one").used, 120);
        drop(first);
        quota.room(60).expect("given back").fill();
        assert_eq!(quota.room(41).expect_err("too much").used, 101);
    }

    #[test]
    fn what_is_pushed_during_a_count_is_not_forgotten() {
        let quota = Quota::new(100);
        let begun = quota.room(10).expect("room");
        quota.room(20).expect("room").fill();
        let written = quota.lock().written;
        quota.room(30).expect("room").fill();
        begun.fill();
        quota.take_count(written, 25);
        assert_eq!(quota.lock().used(), 65);
        quota.take_count(60, 70);
        assert_eq!(quota.lock().used(), 70);
    }
}
