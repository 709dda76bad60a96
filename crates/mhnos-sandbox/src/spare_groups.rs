//! Control groups made before anybody asks.
//!
//! To make a group and write its limits takes 0.13 to 0.2 ms in version 1 (three system calls and more in each of
//! two hierarchies), a good part of what a spawn may cost at all. So a few stand ready, with the limits most
//! processes have, and are made again when the keeper has nothing else to do.

use std::io;

use crate::{Cgroups, Limits, cgroup::Group};

/// How many stand ready: what a burst takes before it waits for groups to be made.
const SPARES: usize = 16;

/// Groups for processes, some of them ready.
#[derive(Debug)]
pub struct SpareGroups {
    cgroups: Cgroups,
    usual: Limits,
    ready: Vec<Group>,
    made: u64,
    /// The last attempt to make one ahead failed; the next is made when one is needed.
    paused: bool,
}

impl SpareGroups {
    /// None is made yet. `usual` are the limits most processes get.
    pub fn new(cgroups: Cgroups, usual: Limits) -> Self {
        Self { cgroups, usual, ready: Vec::with_capacity(SPARES), made: 0, paused: false }
    }

    /// A group with these limits that nobody is in yet.
    pub fn take(&mut self, limits: &Limits) -> io::Result<Group> {
        self.paused = false;
        let group = match self.ready.pop() {
            // Which hierarchies a group is in depends on its CPU limit.
            Some(group) if limits.cpu_millis == self.usual.cpu_millis => {
                if *limits != self.usual {
                    group.limit(limits)?;
                }
                group
            }
            _ => self.make(limits)?,
        };
        Ok(group)
    }

    /// Whether [`SpareGroups::refill`] has something to do.
    pub fn is_short(&self) -> bool {
        self.ready.len() < SPARES && !self.paused
    }

    /// Makes one more ready.
    pub fn refill(&mut self) -> io::Result<()> {
        let usual = self.usual;
        let made = self.make(&usual);
        self.paused = made.is_err();
        self.ready.push(made?);
        Ok(())
    }

    fn make(&mut self, limits: &Limits) -> io::Result<Group> {
        self.made += 1;
        self.cgroups.create(&self.made.to_string(), limits)
    }
}
