//! Who descends from whom, by `/proc/PID/task/TID/children` (proc_pid_task_children(5)).
//!
//! The `/proc` in view may be that of an outer pid namespace (tier T2), where every process has another
//! number than here. `/proc/self` is right in either case, and so is the last number of `NSpid`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, getpid};

use crate::channel;

/// A process as `/proc` shows it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// Its number in this process's own pid namespace: the one to send signals to.
    pub(crate) pid: Pid,
    /// Its directory in `/proc`.
    pub(crate) dir: PathBuf,
    /// Its threads.
    pub(crate) threads: u32,
}

/// All descendants of this process, parents before children. A snapshot: what forks meanwhile may be missing.
pub(crate) fn descendants() -> Vec<Member> {
    let foreign = proc_is_foreign();
    let (mut found, _) = children_of(Path::new("/proc/self"), foreign);
    let mut next = 0;
    while next < found.len() {
        let (children, threads) = children_of(&found[next].dir, foreign);
        found[next].threads = threads;
        found.extend(children);
        next += 1;
    }
    found
}

/// Some of the descendants of this process, with their names; zombies are none.
pub(crate) fn named() -> Vec<channel::Member> {
    let name = |member: &Member| {
        let status = fs::read_to_string(member.dir.join("status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let living = field("State:").is_some_and(|state| !state.starts_with('Z'));
        living.then(|| field("Name:").unwrap_or_default().to_owned())
    };
    let descendants = descendants();
    let named = descendants.iter().filter_map(|member| {
        Some(channel::Member { os_pid: member.pid.as_raw_nonzero().get(), name: name(member)? })
    });
    named.take(channel::MAX_MEMBERS).collect()
}

/// The children of this process.
pub(crate) fn children() -> Vec<Pid> {
    let (children, _) = children_of(Path::new("/proc/self"), proc_is_foreign());
    children.into_iter().map(|child| child.pid).collect()
}

/// The children of a process, whichever of its threads made them, and the number of its threads.
fn children_of(dir: &Path, foreign: bool) -> (Vec<Member>, u32) {
    let Ok(tasks) = fs::read_dir(dir.join("task")) else { return (Vec::new(), 0) };
    let mut found = Vec::new();
    let mut threads = 0;
    for task in tasks.flatten() {
        threads += 1;
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(list.split_whitespace().filter_map(|shown| member(shown, foreign)));
    }
    (found, threads)
}

fn member(shown: &str, foreign: bool) -> Option<Member> {
    let dir = Path::new("/proc").join(shown);
    let number = if foreign { inner_number(&dir)? } else { shown.parse().ok()? };
    Some(Member { pid: Pid::from_raw(number)?, dir, threads: 0 })
}

pub(crate) fn proc_is_foreign() -> bool {
    fs::read_link("/proc/self").is_ok_and(|own| own.to_string_lossy() != getpid().to_string())
}

fn inner_number(dir: &Path) -> Option<i32> {
    let status = fs::read_to_string(dir.join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("NSpid:")?.split_whitespace().last()?.parse().ok())
}
