//! Who descends from whom, by `/proc/PID/task/TID/children` (proc_pid_task_children(5)).

use rustix::process::Pid;

/// All descendants of `root`, parents before children. A snapshot: what forks meanwhile may be missing.
pub(crate) fn descendants(root: Pid) -> Vec<Pid> {
    let mut found = children(root);
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(children(pid));
        next += 1;
    }
    found
}

/// The children of `parent`, whichever of its threads made them.
pub(crate) fn children(parent: Pid) -> Vec<Pid> {
    let tasks = format!("/proc/{}/task", parent.as_raw_nonzero());
    let Ok(tasks) = std::fs::read_dir(tasks) else { return Vec::new() };
    let mut found = Vec::new();
    for task in tasks.flatten() {
        let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(list.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)));
    }
    found
}
