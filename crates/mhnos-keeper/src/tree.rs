//! Who descends from whom, by `/proc/PID/task/TID/children` (proc_pid_task_children(5)).
//!
//! The `/proc` in view may be that of an outer pid namespace (tier T2), where every process has another
//! number than here. `/proc/self` is right in either case, and so is the last number of `NSpid`.

use std::{
    fs::{self, File},
    io::Read,
    ops::ControlFlow,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, getpid};

use crate::channel;

/// Bytes to make room for before a file of `/proc` is read: what most have.
const READ_AHEAD: usize = 512;

/// A process as `/proc` shows it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// Its number in this process's own pid namespace: the one to send signals to.
    pub(crate) pid: Pid,
    /// Its directory in `/proc`.
    pub(crate) dir: PathBuf,
    /// Its threads; one, until it was looked at.
    pub(crate) threads: u32,
}

/// All descendants of this process, parents before children. A snapshot: what forks meanwhile may be missing.
pub(crate) fn descendants() -> Vec<Member> {
    walk(|_, _| ControlFlow::Continue(()))
}

/// Descendants of this process until there are more than `tasks` of them, threads counted: who wants to know whether
/// there are too many must not look at all that a storm of forks has made.
pub(crate) fn descendants_beyond(tasks: u64) -> Vec<Member> {
    walk(|_, known| if known > tasks { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
}

/// All descendants of this process, each told to `met` before it is asked for its children: if it is stopped then,
/// those are all.
pub(crate) fn meet_descendants(mut met: impl FnMut(Pid)) {
    walk(|member, _| {
        met(member.pid);
        ControlFlow::Continue(())
    });
}

/// `step` is given each descendant before its children are looked for, and how many tasks are known by then.
fn walk(mut step: impl FnMut(&Member, u64) -> ControlFlow<()>) -> Vec<Member> {
    let (own, foreign) = own();
    let (mut found, _) = children_of(&own, foreign);
    let (mut next, mut threads) = (0, 0);
    while next < found.len() && step(&found[next], threads + (found.len() - next) as u64).is_continue() {
        let (children, own) = children_of(&found[next].dir, foreign);
        found[next].threads = own;
        threads += u64::from(own);
        found.extend(children);
        next += 1;
    }
    found
}

/// Some of the descendants of this process, with their names; zombies are none.
pub(crate) fn named() -> Vec<channel::Member> {
    let name = |member: &Member| {
        let status = read(&member.dir.join("status"));
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
    let (own, foreign) = own();
    let (children, _) = children_of(&own, foreign);
    children.into_iter().map(|child| child.pid).collect()
}

/// The flag of a process, in proc_pid_stat(5), that has executed nothing since it was forked (`PF_FORKNOEXEC`, Linux's sched.h).
const FORKED_ONLY: u64 = 0x40;

/// Whether this child has become another program since it was forked; what cannot be looked at has.
pub(crate) fn has_executed(child: Pid) -> bool {
    let (own, foreign) = own();
    let (children, _) = children_of(&own, foreign);
    let Some(child) = children.into_iter().find(|member| member.pid == child) else { return true };
    let stat = read(&child.dir.join("stat"));
    let flags =
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(6)?.parse::<u64>().ok());
    flags.is_none_or(|flags| flags & FORKED_ONLY == 0)
}

/// The children of a process, whichever of its threads made them, and the number of its threads.
fn children_of(dir: &Path, foreign: bool) -> (Vec<Member>, u32) {
    let tasks = dir.join("task");
    let mut found = Vec::new();
    let mut look = |task: &Path| {
        let list = read(&task.join("children"));
        found.extend(list.split_whitespace().filter_map(|shown| member(shown, foreign)));
    };
    // Most have one thread, and the number of links tells: "." and ".." and one for each.
    if let (Ok(meta), Some(number)) = (fs::metadata(&tasks), dir.file_name())
        && meta.nlink() == 3
    {
        look(&tasks.join(number));
        return (found, 1);
    }
    let Ok(tasks) = fs::read_dir(tasks) else { return (found, 0) };
    let mut threads = 0;
    for task in tasks.flatten() {
        threads += 1;
        look(&task.path());
    }
    (found, threads)
}

/// A file of `/proc`, empty if it cannot be read. Without asking for its size, which those files do not know. The name
/// in it is the process's own choice, and need not be text.
pub(crate) fn read(path: &Path) -> String {
    let mut bytes = Vec::with_capacity(READ_AHEAD);
    let file = File::open(path).map(|file| file.take(u64::MAX).read_to_end(&mut bytes));
    if file.is_ok_and(|read| read.is_ok()) {
        String::from_utf8_lossy(&bytes).into_owned()
    } else {
        String::new()
    }
}

fn member(shown: &str, foreign: bool) -> Option<Member> {
    let dir = Path::new("/proc").join(shown);
    let number = if foreign { inner_number(&dir)? } else { shown.parse().ok()? };
    Some(Member { pid: Pid::from_raw(number)?, dir, threads: 1 })
}

pub(crate) fn proc_is_foreign() -> bool {
    own().1
}

/// This process in `/proc`, and whether that shows it by another number than it has here.
fn own() -> (PathBuf, bool) {
    let shown = fs::read_link("/proc/self").unwrap_or_else(|_| "self".into());
    let foreign = shown.to_string_lossy() != getpid().to_string();
    (Path::new("/proc").join(shown), foreign)
}

fn inner_number(dir: &Path) -> Option<i32> {
    let status = read(&dir.join("status"));
    status.lines().find_map(|line| line.strip_prefix("NSpid:")?.split_whitespace().last()?.parse().ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a tree to look at is started")]

    use std::process::{Command, Stdio};

    use super::*;

    /// A chain of shells, each a child of the one before, which says when it is complete.
    const CHAIN: &str = "f() { if [ $1 = 0 ]; then echo up; exec cat; fi; ( f $(($1 - 1)) ); true; }; f 40";

    #[test]
    fn a_look_for_too_many_ends_where_there_are_and_a_met_process_is_asked_for_its_children_after() {
        let mut shell = Command::new("sh");
        let shell = shell.args(["-c", CHAIN]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut chain = shell.spawn().expect("sh");
        chain.stdout.as_mut().expect("piped").read_exact(&mut [0; 3]).expect("up");
        assert!(descendants().len() > 40);
        let some = descendants_beyond(5);
        assert!((6..40).contains(&some.len()), "{}", some.len());
        let mut order = Vec::new();
        meet_descendants(|pid| order.push(pid));
        let first = Pid::from_child(&chain);
        let position = |pid| order.iter().position(|met| *met == pid);
        let (children, _) = children_of(&Path::new("/proc").join(first.as_raw_nonzero().to_string()), false);
        assert!(position(first) < position(children[0].pid), "{order:?}");
        drop(chain.stdin.take());
        chain.wait().expect("ends with its input");
    }
}
