//! Supervisors that wait for an order, each with the process that will be a program, in a control group of its
//! own: a spawn is then one message to that and an exec. See `mhnos_sandbox::confine` for what takes long about them.
//!
//! A supervisor whose tree is over rests for a while, without such a process: to use it again, and its group, saves a
//! fork, the end of a process, and half of what the keeper does for a spawn.

use std::{
    collections::VecDeque,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use mhnos_sandbox::cgroup::Group;

use crate::{
    channel::{Failure, Stage},
    inner::{Execute, FromSupervisor, ToInit, ToSupervisor, call_failure},
    limits::{REST, RESTING_SUPERVISORS, SPARE_SUPERVISORS, SPARES_PAUSE},
    outbox::{Attached, Outbox},
    recruit::Recruit,
    sandboxes::Sandbox,
    socket::{Blocking, RecvError, Socket},
};

/// A supervisor with a process that has no order yet.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) control: Outbox<ToSupervisor>,
    pub(crate) recruit: Recruit,
    pub(crate) group: Option<Group>,
}

/// A supervisor without such a process.
#[derive(Debug)]
pub(crate) struct Resting {
    pub(crate) control: Outbox<ToSupervisor>,
    pub(crate) group: Option<Group>,
}

impl Ready {
    /// Has the sandbox's init fork both; returns at once.
    pub(crate) fn start(sandbox: &mut Sandbox, group: Option<Group>) -> io::Result<Self> {
        let (ours, theirs) = Socket::pair(Blocking::No)?;
        let (recruit, its) = Recruit::expect()?;
        let doors = group.as_ref().map(Group::doors).transpose()?.unwrap_or_default();
        let fds = [theirs.into_fd(), its].into_iter().chain(doors).map(Rc::new).collect();
        sandbox.outbox.send(ToInit::Supervise, fds)?;
        Ok(Self { control: Outbox::new(ours), recruit, group })
    }

    /// Whether they wait still. Something inside may have killed one, or it may have failed.
    fn waits(&mut self) -> bool {
        waits(&self.control) && self.recruit.waits()
    }

    /// Sends what waits.
    pub(crate) fn flush(&mut self) {
        let _ = self.control.flush();
        self.recruit.flush();
    }

    /// Whether something waits to be sent.
    pub(crate) fn is_waiting(&self) -> bool {
        self.control.is_waiting() || self.recruit.is_waiting()
    }

    /// Starts this program. Returns at once: [`Recruit::outcome`] tells.
    pub(crate) fn order(&mut self, order: Execute, fds: Attached) -> Result<(), Failure> {
        if self.group.is_none() {
            let limited = self.control.send(ToSupervisor::Limit(order.limits), Vec::new());
            limited.map_err(|error| {
                self.said()
                    .unwrap_or_else(|| call_failure(Stage::Fork, "tell the supervisor its limits", &error))
            })?;
        }
        self.recruit.order(order, fds).map_err(|failure| self.said().unwrap_or(failure))
    }

    /// Why there is nobody to be told, if the supervisor has said so.
    fn said(&self) -> Option<Failure> {
        match self.control.recv::<FromSupervisor>().ok()?.message {
            FromSupervisor::Failed(failure) => Some(failure),
            _ => None,
        }
    }
}

impl Resting {
    /// Has it fork the process of another program, in this group from now on if there is one; returns at once.
    pub(crate) fn renew(mut self, group: Option<Group>) -> io::Result<Ready> {
        let doors = group.as_ref().map(Group::doors).transpose()?.unwrap_or_default();
        let (recruit, its) = Recruit::expect()?;
        self.control.send(ToSupervisor::Renew, std::iter::once(its).chain(doors).map(Rc::new).collect())?;
        Ok(Ready { control: self.control, recruit, group: group.or(self.group) })
    }
}

/// Whether the supervisor at the other end has said nothing.
fn waits(control: &Outbox<ToSupervisor>) -> bool {
    matches!(control.recv::<FromSupervisor>(), Err(RecvError::WouldBlock))
}

/// Those of the shared sandbox.
#[derive(Debug, Default)]
pub(crate) struct Spares {
    waiting: VecDeque<Ready>,
    due: Option<Instant>,
    resting: Vec<Resting>,
    /// When those that rest are let go.
    leave: Option<Instant>,
}

impl Spares {
    /// The one that has waited longest.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Ready> {
        self.due.get_or_insert(now + SPARES_PAUSE);
        while let Some(mut spare) = self.waiting.pop_front() {
            if spare.waits() {
                return Some(spare);
            }
        }
        None
    }

    /// Puts one more into reserve. To be called until [`Spares::left`] says that there are enough.
    pub(crate) fn add(&mut self, spare: Ready) {
        self.waiting.push_back(spare);
        if self.waiting.len() >= SPARE_SUPERVISORS {
            self.due = None;
        }
    }

    /// Lets one rest whose tree is over, or go if enough do.
    pub(crate) fn rest(&mut self, supervisor: Resting, now: Instant) {
        if self.resting.len() < RESTING_SUPERVISORS {
            self.resting.push(supervisor);
            self.leave = Some(now + REST);
        }
    }

    /// One that rests.
    pub(crate) fn wake(&mut self) -> Option<Resting> {
        while let Some(supervisor) = self.resting.pop() {
            if waits(&supervisor.control) {
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
