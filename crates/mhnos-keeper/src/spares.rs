//! Supervisors that wait for an order, each with the process that will be a program, in a control group of its
//! own: a spawn is then one message and an exec. See `mhnos_sandbox::confine` for what takes long about them.
//!
//! A supervisor whose tree is over rests for a while, without such a process: to use it again, and its group, saves a
//! fork, the end of a process, and half of what the keeper does for a spawn.

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use mhnos_sandbox::cgroup::Group;

use crate::{
    inner::{FromSupervisor, ToInit, ToSupervisor},
    limits::{REST, RESTING_SUPERVISORS, SPARE_SUPERVISORS, SPARES_PAUSE},
    outbox::Outbox,
    sandboxes::Sandbox,
    socket::{Blocking, RecvError, Socket},
};

/// A supervisor without an order.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) control: Outbox<ToSupervisor>,
    pub(crate) group: Option<Group>,
}

impl Supervisor {
    /// Has the sandbox's init fork one; returns at once.
    pub(crate) fn start(sandbox: &mut Sandbox, group: Option<Group>) -> io::Result<Self> {
        let (ours, theirs) = Socket::pair(Blocking::No)?;
        let doors = group.as_ref().map(Group::doors).transpose()?.unwrap_or_default();
        let fds = std::iter::once(theirs.into_fd()).chain(doors).collect();
        sandbox.outbox.send(ToInit::Supervise, fds)?;
        Ok(Self { control: Outbox::new(ours), group })
    }

    /// Whether it waits still. Something inside may have killed it, or it may have failed.
    fn waits(&self) -> bool {
        matches!(self.control.recv::<FromSupervisor>(), Err(RecvError::WouldBlock))
    }
}

/// Those of the shared sandbox.
#[derive(Debug, Default)]
pub(crate) struct Spares {
    waiting: VecDeque<Supervisor>,
    due: Option<Instant>,
    resting: Vec<Supervisor>,
    /// When those that rest are let go.
    leave: Option<Instant>,
}

impl Spares {
    /// The one that has waited longest.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Supervisor> {
        self.due.get_or_insert(now + SPARES_PAUSE);
        while let Some(spare) = self.waiting.pop_front() {
            if spare.waits() {
                return Some(spare);
            }
        }
        None
    }

    /// Puts one more into reserve. To be called until [`Spares::left`] says that there are enough.
    pub(crate) fn add(&mut self, spare: Supervisor) {
        self.waiting.push_back(spare);
        if self.waiting.len() >= SPARE_SUPERVISORS {
            self.due = None;
        }
    }

    /// Lets one rest whose tree is over, or go if enough do.
    pub(crate) fn rest(&mut self, supervisor: Supervisor, now: Instant) {
        if self.resting.len() < RESTING_SUPERVISORS {
            self.resting.push(supervisor);
            self.leave = Some(now + REST);
        }
    }

    /// One that rests.
    pub(crate) fn wake(&mut self) -> Option<Supervisor> {
        while let Some(supervisor) = self.resting.pop() {
            if supervisor.waits() {
                return Some(supervisor);
            }
        }
        None
    }

    /// Lets those go that have rested long enough.
    pub(crate) fn let_go(&mut self, now: Instant) {
        if self.leave.is_some_and(|leave| leave <= now) {
            self.resting.clear();
            self.leave = None;
        }
    }

    /// Until one should be added; zero until there are enough again.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(now))
    }

    /// Until there is something to do.
    pub(crate) fn due(&self, now: Instant) -> Option<Duration> {
        let leave = self.leave.map(|leave| leave.saturating_duration_since(now));
        self.left(now).into_iter().chain(leave).min()
    }

    /// None can be added now; the next attempt is after the next use.
    pub(crate) fn pause(&mut self) {
        self.due = None;
    }

    /// Their sandbox is gone, or is to go; none are added until one is asked for.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The first ones, for a sandbox that has just been built.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.due = Some(now);
    }
}
