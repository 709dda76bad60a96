//! Orders become processes, and reports of supervisors become what the bridge is told.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use mhnos_sandbox::{Layer, Limits, cgroup::Group};
use rustix::event::epoll;

use super::{Keeper, SHARED, Token, failure, now_ms};
use crate::{
    channel::{Exit, ExitStatus, FIRST_PID, Failure, FromKeeper, Isolation, Order, Pid, Stage, Usage},
    held::{Held, Inside, Outside, Phase, check},
    inner::{Execute, FromSupervisor, Payload, ToSupervisor},
    limits::{BATCH, MAX_HELD, RESERVED_DESCRIPTORS, SHARED_PIDS_FACTOR},
    outbox::Outbox,
    recruit::Outcome,
    socket::RecvError,
    spares::{Ready, Resting},
};

impl Keeper {
    pub(super) fn spawn(&mut self, mut order: Order) {
        let pid = order.pid;
        if let Err(failure) = self.admit(&mut order) {
            // Nothing has been begun: what is held under this number is another process.
            return self.tell(FromKeeper::Refused { pid, failure }, Vec::new());
        }
        if let Err(failure) = self.try_spawn(&mut order) {
            self.held.remove(&pid);
            self.tell(FromKeeper::Refused { pid, failure }, Vec::new());
        }
    }

    pub(super) fn try_spawn(&mut self, order: &mut Order) -> Result<(), Failure> {
        // The end of its init may be there to be read still: nothing would run in it any more, or not for long.
        self.on_sandbox(SHARED);
        let id = self.sandbox_for(order.isolation)?;
        self.spawn_in(id, order).map_err(|failure| {
            let failure = match failure.errno {
                // Its init has ended already.
                libc::EPIPE => self.died_of(id).unwrap_or(failure),
                _ => failure,
            };
            // Made for this order alone, and nothing else would end it.
            self.close_private(id);
            failure
        })
    }

    fn spawn_in(&mut self, id: u32, order: &mut Order) -> Result<(), Failure> {
        let io_failed = |error: io::Error| failure(Stage::Stdio, &error);
        let mut ready = self.supervisor_for(id, order)?;
        let (inside, outside) = Inside::prepare(order, self.settings.log_bytes).map_err(io_failed)?;
        self.leave_reserve(&outside).map_err(io_failed)?;
        // Without a user namespace of its own the kernel counts all that its user runs.
        let alone =
            order.isolation == Isolation::Private && self.enforcement.layers.contains(&Layer::UserNamespace);
        let factor = if alone { 1 } else { SHARED_PIDS_FACTOR };
        let execute = Execute {
            payload: Payload::Program(inside.launch),
            stdio: order.stdio,
            limits: order.limits,
            nproc: u64::from(order.limits.pids) * factor,
            slots: inside.slots,
        };
        self.watch(&ready.control, Token::Process(order.pid)).map_err(io_failed)?;
        self.watch(&ready.recruit, Token::Recruit(order.pid)).map_err(io_failed)?;
        if let Some(word) = ready.group.as_ref().and_then(Group::word) {
            self.watch(word, Token::Memory(order.pid)).map_err(io_failed)?;
        }
        ready.order(execute, inside.fds)?;
        let enforcement = self.enforcement.clone();
        let held = Held::new(order, id, self.generation, enforcement, outside, ready);
        self.held.insert(order.pid, held);
        Ok(())
    }

    /// Of all numbers that are free a descriptor gets the lowest, so its number says how many there are.
    fn leave_reserve(&self, newest: &Outside) -> io::Result<()> {
        let highest = newest.iter().map(|(_, fd)| fd.as_raw_fd() as u64).max();
        if highest.is_some_and(|number| number + RESERVED_DESCRIPTORS >= self.most_descriptors) {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        Ok(())
    }

    /// One that waits already, one that has ended a program, or a new one.
    fn supervisor_for(&mut self, sandbox: u32, order: &Order) -> Result<Ready, Failure> {
        let usual = self.settings.limits;
        // Which hierarchies a group is in depends on its CPU limit.
        if sandbox != SHARED || order.limits.cpu_millis != usual.cpu_millis {
            return self.new_supervisor(sandbox, &order.limits);
        }
        let waiting = self.spares.take(Instant::now());
        let Some(ready) = waiting.map_or_else(|| self.renew(), |spare| Ok(Some(spare)))? else {
            return self.new_supervisor(sandbox, &order.limits);
        };
        if let Some(group) = ready.group.as_ref().filter(|_| order.limits != usual) {
            group.limit(&order.limits).map_err(|error| failure(Stage::Sandbox, &error))?;
        }
        Ok(ready)
    }

    fn new_supervisor(&mut self, sandbox: u32, limits: &Limits) -> Result<Ready, Failure> {
        let group = self.group_for(limits)?;
        let sandbox = self.sandboxes.get_mut(&sandbox);
        let sandbox = sandbox.ok_or_else(|| failure(Stage::Sandbox, &io::ErrorKind::NotFound.into()))?;
        Ready::start(sandbox, group).map_err(|error| failure(Stage::Fork, &error))
    }

    /// A supervisor whose program has ended, told to get ready for another.
    fn renew(&mut self) -> Result<Option<Ready>, Failure> {
        let usual = self.settings.limits;
        while let Some(resting) = self.spares.wake() {
            let group = if resting.group.is_none() { self.group_for(&usual)? } else { None };
            if let Ok(ready) = resting.renew(group) {
                return Ok(Some(ready));
            }
        }
        Ok(None)
    }

    fn group_for(&mut self, limits: &Limits) -> Result<Option<Group>, Failure> {
        let Some(groups) = &mut self.groups else { return Ok(None) };
        let made = groups.take(limits);
        made.map(Some).map_err(|error| Failure {
            detail: "make a control group".to_owned(),
            ..failure(Stage::Sandbox, &error)
        })
    }

    /// Makes one spare group or supervisor; if that fails, none is tried until one is needed. Supervisors that have
    /// not been needed for a while are let go.
    pub(super) fn prepare_ahead(&mut self) {
        self.spares.let_go(Instant::now());
        if self.spares.left(Instant::now()) == Some(Duration::ZERO) {
            return self.prepare_supervisor();
        }
        if let Some(groups) = self.groups.as_mut().filter(|groups| groups.is_short())
            && let Err(error) = groups.refill()
        {
            tracing::warn!(%error, "cannot make a control group");
        }
    }

    fn prepare_supervisor(&mut self) {
        if self.stopping.is_some() || !self.sandboxes.contains_key(&SHARED) {
            return self.spares.clear();
        }
        let usual = self.settings.limits;
        let made =
            self.renew().and_then(|renewed| renewed.map_or_else(|| self.new_supervisor(SHARED, &usual), Ok));
        match made {
            Ok(supervisor) => self.spares.add(supervisor),
            Err(failure) => {
                tracing::warn!(?failure, "cannot prepare a supervisor");
                self.spares.pause();
            }
        }
    }

    /// Numbers only ever rise, limits are at most the operator's, and no more is held than may be.
    pub(super) fn admit(&mut self, order: &mut Order) -> Result<(), Failure> {
        let refuse = |detail: &str| Err(Failure { stage: Stage::Order, errno: 0, detail: detail.to_owned() });
        let last = if order.pid < FIRST_PID { &mut self.last_probe } else { &mut self.last_pid };
        if order.pid <= *last {
            return refuse("this pid has been used");
        }
        *last = order.pid;
        if self.held.len() >= MAX_HELD || self.stopping.is_some() {
            return refuse("the service is stopping or holds too many processes");
        }
        check(order)?;
        let most = &self.settings.limits;
        order.limits.memory = order.limits.memory.min(most.memory);
        order.limits.pids = order.limits.pids.min(most.pids);
        order.limits.cpu_millis = order.limits.cpu_millis.min(most.cpu_millis);
        Ok(())
    }

    pub(super) fn on_supervisor(&mut self, pid: Pid) {
        for _ in 0..BATCH {
            let Some(control) = self.held.get_mut(&pid).and_then(Held::control) else { return };
            let report = control.recv_words::<FromSupervisor>();
            // What is known of a program's start is told before what came after it.
            self.on_recruit(pid);
            match report {
                Ok(received) => self.on_report(pid, received.message, received.fds.into_iter().next()),
                Err(RecvError::WouldBlock) => return,
                Err(RecvError::Malformed(what)) => tracing::error!(pid, what, "malformed report"),
                Err(RecvError::Closed | RecvError::Io(_)) => return self.lose(pid),
            }
        }
    }

    /// The process of a program runs it, or never will.
    pub(super) fn on_recruit(&mut self, pid: Pid) {
        let Some(held) = self.held.get_mut(&pid) else { return };
        let Phase::Starting { recruit, .. } = &mut held.phase else { return };
        match recruit.outcome() {
            Outcome::NotYet => {}
            // A closed channel would wake the keeper again and again.
            Outcome::Lost => {
                let _ = epoll::delete(&self.epoll, recruit);
            }
            Outcome::Failed(failure) => self.refuse(pid, failure),
            Outcome::Started(started) => {
                held.started(started);
                if held.generation != self.generation {
                    return self.introduce(pid);
                }
                let (message, fds) = held.start_message();
                self.tell(message, fds);
            }
        }
    }

    fn refuse(&mut self, pid: Pid, failure: Failure) {
        self.remove(pid);
        self.tell(FromKeeper::Refused { pid, failure }, Vec::new());
    }

    pub(super) fn on_report(&mut self, pid: Pid, report: FromSupervisor, attached: Option<OwnedFd>) {
        let Some(held) = self.held.get_mut(&pid) else { return };
        match report {
            FromSupervisor::Failed(failure) => self.refuse(pid, failure),
            FromSupervisor::Exited(exit) => {
                if exit.status == ExitStatus::Signal(libc::SIGKILL) {
                    // The end of its init may have been the cause, and not have been read yet.
                    let sandbox = held.sandbox;
                    self.on_sandbox(sandbox);
                }
                let Some(held) = self.held.get_mut(&pid) else { return };
                if matches!(held.phase, Phase::Starting { .. }) {
                    let detail = format!("the process ended before it had an order ({:?})", exit.status);
                    return self.refuse(pid, Failure { stage: Stage::Fork, errno: 0, detail });
                }
                let exit = held.exited(exit);
                self.tell(FromKeeper::Exited { pid, exit }, Vec::new());
            }
            FromSupervisor::Ended(usage) => self.end(pid, usage),
            FromSupervisor::Members(members) => self.tell(FromKeeper::Members { pid, members }, Vec::new()),
            FromSupervisor::Ports(ports) => {
                held.ports.clone_from(&ports);
                self.tell(FromKeeper::Ports { pid, ports }, Vec::new());
            }
            FromSupervisor::Dialed { token, errno } => self.dialed(pid, token, errno, attached),
        }
    }

    /// The supervisor is gone without a word.
    pub(super) fn lose(&mut self, pid: Pid) {
        let Some(held) = self.held.get_mut(&pid) else { return };
        let sandbox = held.sandbox;
        // Init alone would be left to find its tree, which may fork faster than it is found.
        held.kill();
        match held.phase {
            Phase::Starting { .. } => {
                // The word of its init may be on its way, and the end of both told by that.
                self.on_sandbox(sandbox);
                if !self.held.contains_key(&pid) {
                    return;
                }
                let unknown =
                    Failure { stage: Stage::Sandbox, errno: 0, detail: "the sandbox has ended".to_owned() };
                let failure = self.sandboxes.get(&sandbox).and_then(|s| s.failure.clone()).unwrap_or(unknown);
                self.refuse(pid, failure);
            }
            Phase::Running { .. } => self.end(pid, Usage::default()),
            Phase::Ended { .. } => {}
        }
    }

    pub(super) fn end(&mut self, pid: Pid, usage: Usage) {
        let lost = Exit { status: ExitStatus::Lost, time_ms: now_ms(), limit: None, usage };
        let Some(held) = self.held.get_mut(&pid) else { return };
        let was_told = matches!(held.phase, Phase::Running { exit: Some(_), .. });
        let (exit, control) = held.ended(usage, lost);
        let sandbox = held.sandbox;
        if !was_told {
            self.tell(FromKeeper::Exited { pid, exit }, Vec::new());
        }
        self.tell(FromKeeper::Ended { pid, usage }, Vec::new());
        self.keep_supervisor(pid, sandbox, control);
        self.close_private(sandbox);
    }

    /// Keeps a supervisor whose tree is over for another program, with its control group if that can be used again.
    fn keep_supervisor(&mut self, pid: Pid, sandbox: u32, control: Option<Outbox<ToSupervisor>>) {
        let Some(held) = self.held.get_mut(&pid) else { return };
        held.word().map(|word| epoll::delete(&self.epoll, word));
        let group = held.take_group(&self.settings.limits);
        let usable = sandbox == SHARED && held.has_sandbox() && self.stopping.is_none();
        let fit = |control: &Outbox<_>| usable && !control.is_waiting();
        let Some(control) = control.filter(fit) else { return };
        // It is watched for the process that has ended.
        if epoll::delete(&self.epoll, &control).is_ok() {
            self.spares.rest(Resting { control, group }, Instant::now());
        }
    }

    pub(super) fn remove(&mut self, pid: Pid) {
        if let Some(held) = self.held.remove(&pid) {
            self.close_private(held.sandbox);
        }
    }
}
