//! Limits of a tree where no control group keeps them: the supervisor looks, and ends a tree that is over.
//!
//! What is looked at costs microseconds a process, so it is looked at often only when it matters, processes first. A
//! sum of resident sets counts what parent and child share twice; before a tree is ended for it, the exact
//! but slow proportional sizes (`smaps_rollup`, milliseconds) decide.

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
}

impl Watchdog {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, due: Instant::now() + WATCH_INTERVAL }
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
        let used: u64 = tree.iter().map(|member| resident(&member.dir)).sum();
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

/// Bytes in memory, what is shared counted in parts.
fn proportional(tree: &[Member]) -> u64 {
    tree.iter().map(|member| proportional_size(&member.dir).unwrap_or_else(|| resident(&member.dir))).sum()
}

fn proportional_size(dir: &Path) -> Option<u64> {
    let text = fs::read_to_string(dir.join("smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}
