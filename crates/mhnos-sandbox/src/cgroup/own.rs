//! The directories a service has for its control groups: named so that one of a service that is no more is known as such,
//! and gone with the service.
//!
//! Who may write a directory may remove what is in it, and the service gives root up. So in a hierarchy of version 1 it has its
//! directory in one that belongs to its account (`mhnos-user-UID`), which stays for the next one and is empty. In
//! version 2 the keeper itself is in a group of its own, which nobody can remove before it has ended: systemd does, which has
//! made the unit's; elsewhere the next start. The next start it is, too, that removes what a killed service has left.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::{Kind, find_of};
use crate::stage::Account;

/// How all our directories begin that are not in one of ours.
pub(super) const PREFIX: &str = "mhnos-";

/// Directories that could not be removed and are tried again when a group is made: more than one group has.
const TRIES: usize = 4;

/// Where the services of this account have theirs, in a hierarchy of version 1.
pub(super) fn common(hierarchy: &Path, account: Account) -> PathBuf {
    hierarchy.join(format!("{PREFIX}user-{}", account.uid))
}

/// This process, whatever others had its number before: `PID-START`.
pub(super) fn name() -> Option<String> {
    let pid = std::process::id();
    Some(format!("{pid}-{}", started(pid)?))
}

/// When a process started, in ticks since boot (proc_pid_stat(5)).
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets, and may hold anything.
    String::from_utf8_lossy(&stat).rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Removes what services that were killed have left: directories whose keeper is gone, though another process may have its
/// number. That nobody is in one says nothing: a service that runs no program has an empty one too.
pub(super) fn remove_stale(dir: &Path, prefix: &str) {
    for (path, pid, start) in services(dir, prefix) {
        if started(pid) != Some(start) {
            remove_empty(&path);
        }
    }
}

/// The directories of services in this one.
fn services(dir: &Path, prefix: &str) -> impl Iterator<Item = (PathBuf, u32, u64)> {
    fs::read_dir(dir).into_iter().flatten().flatten().filter_map(move |entry| {
        let name = entry.file_name();
        let (pid, start) = name.to_str()?.strip_prefix(prefix)?.split_once('-')?;
        Some((entry.path(), pid.parse().ok()?, start.parse().ok()?))
    })
}

/// Where a process is (`self` or its number), in every hierarchy that could hold groups of ours.
pub fn dirs_of(process: &str) -> Vec<PathBuf> {
    find_of(process).into_iter().map(|hierarchy| hierarchy.dir).collect()
}

/// The directories that the keeper with this number has or had, as far as they are there still.
pub fn left_by(pid: u32) -> Vec<PathBuf> {
    let mut left = Vec::new();
    for hierarchy in find_of("self") {
        let places: Vec<(PathBuf, &str)> = match hierarchy.kind {
            Kind::V2 => vec![(hierarchy.dir, PREFIX)],
            Kind::V1 => {
                let entries = fs::read_dir(&hierarchy.dir).into_iter().flatten().flatten();
                let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
                ours.map(|entry| (entry.path(), "")).collect()
            }
        };
        let services = places.iter().flat_map(|(dir, prefix)| services(dir, prefix));
        left.extend(services.filter(|(_, other, _)| *other == pid).map(|(path, ..)| path));
    }
    left
}

/// A directory and what is below, as far as nobody is in there.
fn remove_empty(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}

/// A service's directories. Dropping it removes them and what is in them.
#[derive(Debug)]
pub(super) struct Own {
    dirs: Vec<PathBuf>,
    /// Of groups that somebody was in still when they were given up: who could not become a program, say, and is about to end.
    left: Mutex<VecDeque<PathBuf>>,
}

impl Own {
    pub(super) fn of(dirs: Vec<PathBuf>) -> Self {
        Self { dirs, left: Mutex::default() }
    }

    /// Removes the directory of a group: now, or once nobody is in it.
    pub(super) fn remove(&self, dir: &Path) {
        if is_left(dir) {
            self.left.lock().unwrap_or_else(PoisonError::into_inner).push_back(dir.to_owned());
        }
    }

    /// Removes some of those that could not be removed before.
    pub(super) fn remove_left(&self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..TRIES.min(left.len()) {
            if let Some(dir) = left.pop_front().filter(|dir| is_left(dir)) {
                left.push_back(dir);
            }
        }
    }
}

/// Whether this directory is there although it was to be removed.
fn is_left(dir: &Path) -> bool {
    fs::remove_dir(dir).is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
}

impl Drop for Own {
    fn drop(&mut self) {
        self.dirs.iter().for_each(|dir| remove_empty(dir));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_of_keepers_that_are_no_more_are_removed() {
        let dir = std::env::temp_dir().join(format!("cgroup-stale-{}", std::process::id()));
        let own = name().expect("a name");
        let kept = [dir.join(format!("mhnos-{own}")), dir.join("mhnos-user-1"), dir.join(own)];
        // No process; this one's number when another had it.
        let gone = [dir.join("mhnos-999999999-5"), dir.join(format!("mhnos-{}-0", std::process::id()))];
        for dir in kept.iter().chain(&gone) {
            fs::create_dir_all(dir.join("programs")).expect("make");
        }
        remove_stale(&dir, PREFIX);
        assert!(kept.iter().all(|dir| dir.exists()) && !gone.iter().any(|dir| dir.exists()));
        drop(Own::of(vec![dir.clone()]));
        assert!(!dir.exists());
    }

    /// That a directory holds something stands for that somebody is in a group.
    #[test]
    fn a_group_that_could_not_be_removed_is_removed_later() {
        let dir = std::env::temp_dir().join(format!("cgroup-left-{}", std::process::id()));
        let groups: Vec<_> = (0..3 * TRIES).map(|number| dir.join(number.to_string())).collect();
        let own = Own::of(vec![dir.clone()]);
        for group in &groups {
            fs::create_dir_all(group.join("somebody")).expect("make");
            own.remove(group);
        }
        own.remove_left();
        assert!(groups.iter().all(|group| group.exists()));
        for group in &groups {
            fs::remove_dir(group.join("somebody")).expect("there");
        }
        for _ in 0..3 {
            own.remove_left();
        }
        assert!(!groups.iter().any(|group| group.exists()));
        own.remove(&groups[0]);
        assert!(own.left.lock().expect("one thread").is_empty(), "what is gone is not left");
    }
}
