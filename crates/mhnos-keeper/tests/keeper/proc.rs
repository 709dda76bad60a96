//! Of processes, what `/proc` says.

use std::fs;

/// A field of proc_pid_stat(5) by its number there, from the third on; `None` if there is no such process.
pub(crate) fn stat(pid: i32, field: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, the second, stands in brackets and may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(field - 3).map(str::to_owned)
}

/// The process's parent.
pub(crate) fn parent(pid: i32) -> Option<i32> {
    stat(pid, 4)?.parse().ok()
}

/// The children of a process with one thread.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Whether this is one of the keeper's supervisors, or a process of one that is to be a program.
pub(crate) fn is_supervise(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "mhnos-supervise\n")
}
