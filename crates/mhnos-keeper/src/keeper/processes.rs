//! Orders become processes, and reports of supervisors become what the bridge is told.

use std::{io, os::fd::OwnedFd};

use mhnos_sandbox::cgroup::Group;

use super::{Keeper, Token, failure, now_ms};
use crate::{
    channel::{Exit, ExitStatus, FIRST_PID, Failure, FromKeeper, Isolation, Order, Pid, Stage, Usage},
    held::{Held, Phase, check},
    inner::{Execute, FromSupervisor, Payload},
    limits::{BATCH, MAX_HELD, SHARED_PIDS_FACTOR},
    socket::RecvError,
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
        let id = self.sandbox_for(order.isolation)?;
        let io_failed = |error: io::Error| failure(Stage::Stdio, &error);
        let group = self.group_for(order)?;
        let (mut held, inside) = Held::prepare(
            order,
            id,
            self.generation,
            self.enforcement.clone(),
            self.settings.log_bytes,
            group,
        )
        .map_err(io_failed)?;
        if let Some(control) = held.control() {
            self.watch(&*control, Token::Process(order.pid)).map_err(io_failed)?;
        }
        let factor = if order.isolation == Isolation::Shared { SHARED_PIDS_FACTOR } else { 1 };
        let execute = Execute {
            payload: Payload::Program(inside.launch),
            stdio: order.stdio,
            limits: order.limits,
            nproc: u64::from(order.limits.pids) * factor,
            slots: inside.slots,
        };
        self.held.insert(order.pid, held);
        let Some(sandbox) = self.sandboxes.get_mut(&id) else {
            return Err(failure(Stage::Sandbox, &io::ErrorKind::NotFound.into()));
        };
        sandbox.execute(execute, inside.fds).map_err(|error| failure(Stage::Fork, &error))
    }

    fn group_for(&mut self, order: &Order) -> Result<Option<Group>, Failure> {
        let Some(groups) = &mut self.groups else { return Ok(None) };
        let made = groups.take(&order.limits);
        made.map(Some).map_err(|error| Failure {
            detail: "make a control group".to_owned(),
            ..failure(Stage::Sandbox, &error)
        })
    }

    /// Makes one spare group; if that fails, none is tried until one is needed.
    pub(super) fn prepare_groups(&mut self) {
        if let Some(groups) = self.groups.as_mut().filter(|groups| groups.is_short())
            && let Err(error) = groups.refill()
        {
            tracing::warn!(%error, "cannot make a control group");
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
            match control.recv::<FromSupervisor>() {
                Ok(received) => self.on_report(pid, received.message, received.fds.into_iter().next()),
                Err(RecvError::WouldBlock) => return,
                Err(RecvError::Malformed(what)) => tracing::error!(pid, what, "malformed report"),
                Err(RecvError::Closed | RecvError::Io(_)) => return self.lose(pid),
            }
        }
    }

    pub(super) fn on_report(&mut self, pid: Pid, report: FromSupervisor, attached: Option<OwnedFd>) {
        let Some(held) = self.held.get_mut(&pid) else { return };
        match report {
            FromSupervisor::Started { os_pid } => {
                held.started(os_pid, attached);
                if held.generation != self.generation {
                    return self.introduce(pid);
                }
                match held.start_message() {
                    Ok((message, fds)) => self.tell(message, fds),
                    Err(error) => {
                        let failure = failure(Stage::Stdio, &error);
                        self.remove(pid);
                        self.tell(FromKeeper::Refused { pid, failure }, Vec::new());
                    }
                }
            }
            FromSupervisor::Failed(failure) => {
                self.remove(pid);
                self.tell(FromKeeper::Refused { pid, failure }, Vec::new());
            }
            FromSupervisor::Exited(exit) => {
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
        let Some(held) = self.held.get(&pid) else { return };
        let sandbox = held.sandbox;
        match held.phase {
            Phase::Starting(_) => {
                self.on_sandbox(sandbox);
                let unknown =
                    Failure { stage: Stage::Sandbox, errno: 0, detail: "the sandbox has ended".to_owned() };
                let failure = self.sandboxes.get(&sandbox).and_then(|s| s.failure.clone()).unwrap_or(unknown);
                self.remove(pid);
                self.tell(FromKeeper::Refused { pid, failure }, Vec::new());
            }
            Phase::Running { .. } => self.end(pid, Usage::default()),
            Phase::Ended { .. } => {}
        }
    }

    pub(super) fn end(&mut self, pid: Pid, usage: Usage) {
        let lost = Exit { status: ExitStatus::Lost, time_ms: now_ms(), limit: None, usage };
        let Some(held) = self.held.get_mut(&pid) else { return };
        let was_told = matches!(held.phase, Phase::Running { exit: Some(_), .. });
        let exit = held.ended(usage, lost);
        let sandbox = held.sandbox;
        if !was_told {
            self.tell(FromKeeper::Exited { pid, exit }, Vec::new());
        }
        self.tell(FromKeeper::Ended { pid, usage }, Vec::new());
        self.close_private(sandbox);
    }

    pub(super) fn remove(&mut self, pid: Pid) {
        if let Some(held) = self.held.remove(&pid) {
            self.close_private(held.sandbox);
        }
    }
}
