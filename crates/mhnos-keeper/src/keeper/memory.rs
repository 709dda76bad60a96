//! Control groups of version 1 that are out of memory: the kernel kills one process there, and the keeper what goes with it.
//!
//! The kernel gives its word to all groups below the one that is out of memory, which may be the service's own or one above it,
//! with a limit for all that runs there; and it does so just before it kills. So what counts is that somebody of the group was
//! killed: that is looked for when the word comes, and, for a while, again.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rustix::event::epoll;

use super::Keeper;
use crate::{
    channel::Pid,
    held::Held,
    limits::{MEMORY_LOOK, MEMORY_PATIENCE},
};

/// Processes whose group may have lost somebody.
#[derive(Debug, Default)]
pub(super) struct Suspects(BTreeMap<Pid, Look>);

#[derive(Debug)]
struct Look {
    due: Instant,
    pause: Duration,
}

impl Suspects {
    /// When the next look is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.values().map(|look| look.due).min()
    }
}

impl Keeper {
    /// Its control group is out of memory, or one above that is.
    pub(super) fn on_memory(&mut self, pid: Pid) {
        let Some(word) = self.held.get(&pid).and_then(Held::word) else { return };
        if !word.take() {
            // It would wake the keeper again and again.
            let _ = epoll::delete(&self.epoll, word);
        }
        let now = Instant::now();
        self.suspects.0.insert(pid, Look { due: now, pause: MEMORY_LOOK });
        self.look_for_memory_kills(now);
    }

    /// Ends all of those that have lost somebody.
    pub(super) fn look_for_memory_kills(&mut self, now: Instant) {
        let held = &mut self.held;
        self.suspects.0.retain(|pid, look| {
            if look.due > now {
                return true;
            }
            let Some(held) = held.get_mut(pid) else { return false };
            if held.was_killed_for_memory() {
                held.kill();
                return false;
            }
            look.due = now + look.pause;
            look.pause *= 2;
            look.pause <= MEMORY_PATIENCE
        });
    }
}
