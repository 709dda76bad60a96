//! Limits of a tree where no control group keeps them: the supervisor looks, and ends a tree that is over.
//!
//! What counts is what only the end of a program, or swapping, gives back: memory of its own and shared memory, in swap or not.
//! Pages of files are the kernel's to take.
//!
//! What is looked at costs microseconds a process, so it is looked at often only when it matters, processes first, and the
//! cheapest file first: resident sets, which count files and what parent and child share twice (`statm`), then without the
//! files (`status`). Before a tree is ended for it, the exact but slow proportional sizes (`smaps_rollup`, milliseconds) decide.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use mhnos_sandbox::Limits;
use rustix::process::{Pid, setpriority_pgrp, setpriority_process};

use crate::{
    channel::LimitHit,
    limits::{CROWDED_NICE, WATCH_CLOSELY_ABOVE_PERCENT, WATCH_INTERVAL, WATCH_INTERVAL_CLOSE},
    tree::{Member, descendants_beyond, read},
};

#[derive(Debug)]
pub(crate) struct Watchdog {
    limits: Limits,
    due: Instant,
    /// Whether the machine has swap, which no resident set shows.
    swaps: bool,
}

impl Watchdog {
    pub(crate) fn new(limits: Limits) -> Self {
        // The first line is a heading (proc_swaps(5)); what cannot be read may be there.
        let swaps = fs::read_to_string("/proc/swaps").map_or(true, |table| table.lines().count() > 1);
        Self { limits, due: Instant::now() + WATCH_INTERVAL, swaps }
    }

    /// Until the next look.
    pub(crate) fn left(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    /// Looks, if it is time to; a limit that is exceeded is returned.
    pub(crate) fn look(&mut self, leader: Option<Pid>) -> Option<LimitHit> {
        if !self.left().is_zero() {
            return None;
        }
        let most = u64::from(self.limits.pids);
        let tree = descendants_beyond(most);
        let tasks: u64 = tree.iter().map(|member| u64::from(member.threads)).sum();
        if tasks > most {
            return Some(LimitHit::Pids);
        }
        let crowded = near(tasks, most);
        if crowded {
            put_behind(leader, &tree);
        }
        let mut used: u64 = tree.iter().map(|member| resident(&member.dir)).sum();
        if self.swaps || near(used, self.limits.memory) {
            used = tree.iter().map(|member| held(&member.dir)).sum();
        }
        let close = crowded || near(used, self.limits.memory);
        self.due = Instant::now() + if close { WATCH_INTERVAL_CLOSE } else { WATCH_INTERVAL };
        (used > self.limits.memory && proportional(&tree) > self.limits.memory).then_some(LimitHit::Memory)
    }
}

/// Whether it is time to look closely.
fn near(used: u64, limit: u64) -> bool {
    used * 100 > limit.saturating_mul(WATCH_CLOSELY_ABOVE_PERCENT)
}

/// Lets everybody else go first, for good: so many processes together would leave their supervisor too little of the
/// processor to count them once more.
fn put_behind(leader: Option<Pid>, tree: &[Member]) {
    // Most of most trees by one call, while the leader's number is its group's.
    let _ = leader.map(|leader| setpriority_pgrp(Some(leader), CROWDED_NICE));
    for member in tree {
        let _ = setpriority_process(Some(member.pid), CROWDED_NICE);
    }
}

/// Bytes in memory, what is shared counted in full (proc_pid_statm(5)).
fn resident(dir: &Path) -> u64 {
    let text = read(&dir.join("statm"));
    let pages: u64 = text.split(' ').nth(1).and_then(|field| field.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// Bytes that are not a file's, in memory or swap, what is shared counted in full (proc_pid_status(5)).
fn held(dir: &Path) -> u64 {
    kibibytes(&read(&dir.join("status")), &["RssAnon:", "RssShmem:", "VmSwap:"])
}

/// The same, what is shared counted in parts (proc_pid_smaps(5)).
fn proportional(tree: &[Member]) -> u64 {
    let of = |member: &Member| match fs::read_to_string(member.dir.join("smaps_rollup")) {
        // Told apart since Linux 5.4.
        Ok(sums) if sums.contains("Pss_Anon:") => kibibytes(&sums, &["Pss_Anon:", "Pss_Shmem:", "SwapPss:"]),
        _ => held(&member.dir),
    };
    tree.iter().map(of).sum()
}

/// The sum of these lines, in bytes.
fn kibibytes(table: &str, names: &[&str]) -> u64 {
    let of = |line: &str| {
        let rest = names.iter().find_map(|name| line.strip_prefix(name))?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    };
    table.lines().filter_map(of).sum::<u64>() * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_and_shared_memory_count_and_files_do_not() {
        let status =
            "VmRSS:\t  900 kB\nRssAnon:\t 100 kB\nRssFile:\t 700 kB\nRssShmem:\t 100 kB\nVmSwap:\t 50 kB\n";
        let sums = "Pss:  900 kB\nPss_Anon:  60 kB\nPss_File:  700 kB\nPss_Shmem:  30 kB\nSwap:  50 kB\nSwapPss:  20 kB\n";
        let dir = std::env::temp_dir().join(format!("watchdog-{}", std::process::id()));
        fs::create_dir(&dir).expect("new");
        fs::write(dir.join("status"), status).expect("write");
        let member = || Member { pid: rustix::process::getpid(), dir: dir.clone(), threads: 1 };
        assert_eq!(held(&dir), 250 * 1024);
        let named = [b"Name:\t\xff\n", status.as_bytes()].concat();
        fs::write(dir.join("status"), named).expect("write");
        assert_eq!(held(&dir), 250 * 1024, "whatever its name");
        assert_eq!(proportional(&[member(), member()]), 500 * 1024, "as good as it gets");
        fs::write(dir.join("smaps_rollup"), sums).expect("write");
        assert_eq!(proportional(&[member()]), 110 * 1024);
        fs::remove_dir_all(&dir).expect("ours");
    }

    /// The kernel's own words for it.
    #[test]
    fn the_files_of_this_kernel_are_understood() {
        let own = || vec![Member { pid: rustix::process::getpid(), dir: "/proc/self".into(), threads: 1 }];
        let before = (held(Path::new("/proc/self")), proportional(&own()));
        let block = std::hint::black_box(vec![7_u8; 64 << 20]);
        let grown = (held(Path::new("/proc/self")), proportional(&own()));
        assert!(grown.0 >= before.0 + (60 << 20) && grown.1 >= before.1 + (60 << 20), "{before:?} {grown:?}");
        drop(block);
    }
}
