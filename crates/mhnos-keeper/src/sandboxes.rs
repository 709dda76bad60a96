//! The sandboxes there are: the workspace's shared one, and one for each private process.

use std::{io, os::fd::OwnedFd, rc::Rc, time::Instant};

use mhnos_sandbox::{
    Limits, Outlet, Outside, Policy, Stdio, WindowSize,
    cgroup::Group,
    namespaces,
    sys::{self, Fork},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::WaitId,
};

use crate::{
    channel::{ExitStatus, Failure, FromKeeper, Pid, Stage},
    init,
    inner::{Execute, FromInit, FromSupervisor, Payload, ToInit},
    limits::{SETUP_TIMEOUT, SHARED_PIDS_FACTOR, TOO_MANY_PAUSE},
    outbox::{Attached, Outbox},
    recruit::Outcome,
    socket::{Blocking, RecvError, Socket},
    spares::Ready,
};

/// One sandbox, by its init. Dropping it closes init's channel, on which init ends and takes everything in
/// its pid namespace along.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) outbox: Outbox<ToInit>,
    /// Its init, until that has been reaped.
    pub(crate) init: Option<rustix::process::Pid>,
    /// Why the walls could not be put up, if so.
    pub(crate) failure: Option<Failure>,
    /// What leads out of its own network: held for bridges to come.
    outlets: Vec<(Outlet, Rc<OwnedFd>)>,
}

impl Sandbox {
    /// Creates the init and returns at once; orders may be sent before it is ready.
    pub(crate) fn create(policy: &Policy, grouped: bool) -> io::Result<Self> {
        let (ours, theirs) = Socket::pair(Blocking::No)?;
        match sys::fork(namespaces(policy))? {
            Fork::Child => init::run(&theirs, policy, grouped),
            Fork::Parent(init) => {
                Ok(Self { outbox: Outbox::new(ours), init: Some(init), failure: None, outlets: Vec::new() })
            }
        }
    }

    /// Waits until the walls stand: for the first one, at start, which decides whether the service runs.
    pub(crate) fn wait_ready(&mut self) -> Result<(), Failure> {
        let timeout = Timespec { tv_sec: SETUP_TIMEOUT.as_secs() as i64, tv_nsec: 0 };
        let _ = poll(&mut [PollFd::new(&self.outbox, PollFlags::IN)], Some(&timeout));
        let lost = |detail: &str| Failure { stage: Stage::Sandbox, errno: 0, detail: detail.to_owned() };
        match self.outbox.recv::<FromInit>() {
            Ok(received) => match received.message {
                FromInit::Ready(kinds) => {
                    self.stands(kinds, received.fds);
                    Ok(())
                }
                FromInit::SetupFailed(failure) => Err(failure),
            },
            Err(RecvError::WouldBlock) => Err(lost("the sandbox did not come up in time")),
            Err(error) => Err(lost(&format!("the sandbox's init ended early: {error}"))),
        }
    }

    /// Takes what init has opened inside.
    pub(crate) fn stands(&mut self, kinds: Vec<Outlet>, sockets: Vec<OwnedFd>) {
        self.outlets = kinds.into_iter().zip(sockets.into_iter().map(Rc::new)).collect();
    }

    /// Whether something that a start needs waits still to be sent, after another attempt.
    fn is_waiting(&mut self, ready: &mut Ready) -> bool {
        // What has gone wrong is told by who does not get it.
        let _ = self.outbox.flush();
        ready.flush();
        self.outbox.is_waiting() || ready.is_waiting()
    }

    /// Lets its init go on if it was stopped: see [`init`](crate::init). Who shares a session may, whoever the other is.
    pub(crate) fn go_on_if_stopped(&self) {
        if let Some(init) = self.init.filter(|init| init::is_stopped(WaitId::Pid(*init))) {
            tracing::warn!(os_pid = init.as_raw_nonzero().get(), "a sandbox's init was stopped; it goes on");
            let _ = sys::kill(init, libc::SIGCONT);
        }
    }

    /// Whether it has a network of its own.
    pub(crate) fn has_network(&self) -> bool {
        !self.outlets.is_empty()
    }

    /// The message that tells a bridge of its network, if it has one of its own.
    pub(crate) fn network(&self, id: u32, process: Option<Pid>) -> (FromKeeper, Attached) {
        let sockets = self.outlets.iter().map(|(_, socket)| socket.clone()).collect();
        let outlets = self.outlets.iter().map(|(outlet, _)| *outlet).collect();
        (FromKeeper::Network { sandbox: id, process, outlets }, sockets)
    }

    /// Has a self-test go through all that a program goes through, and waits for its end.
    pub(crate) fn self_test(
        &mut self,
        outside: Outside,
        limits: Limits,
        group: Option<Group>,
    ) -> Result<(), Failure> {
        let failed = |detail: &str, error: io::Error| Failure {
            stage: Stage::Sandbox,
            errno: error.raw_os_error().unwrap_or(0),
            detail: detail.to_owned(),
        };
        let mut ready = Ready::start(self, group).map_err(|error| failed("start the self-test", error))?;
        let order = Execute {
            payload: Payload::SelfTest(outside),
            stdio: Stdio::Pty(WindowSize::DEFAULT),
            limits,
            nproc: u64::from(limits.pids) * SHARED_PIDS_FACTOR,
            slots: Vec::new(),
        };
        ready.order(order, Vec::new())?;
        let deadline = Instant::now() + SETUP_TIMEOUT;
        loop {
            // Its own word comes first, and its supervisor's once it has ended.
            if let Outcome::Failed(failure) = ready.recruit.outcome() {
                return Err(failure);
            }
            match ready.control.recv::<FromSupervisor>() {
                Ok(received) => match received.message {
                    FromSupervisor::Failed(failure) => return Err(failure),
                    FromSupervisor::Exited(exit) if exit.status != ExitStatus::Code(0) => {
                        return Err(failed(
                            &format!("the self-test ended early: {:?}", exit.status),
                            io::Error::other(""),
                        ));
                    }
                    FromSupervisor::Exited(_)
                    | FromSupervisor::Members(_)
                    | FromSupervisor::Ports(_)
                    | FromSupervisor::Dialed { .. } => {}
                    FromSupervisor::Ended(_) => return Ok(()),
                },
                Err(RecvError::WouldBlock) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(failed("the self-test took too long", io::ErrorKind::TimedOut.into()));
                    }
                    let left =
                        Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
                    let left = if self.is_waiting(&mut ready) { TOO_MANY_PAUSE } else { left };
                    let _ = poll(&mut [PollFd::new(&ready.control, PollFlags::IN)], Some(&left));
                }
                Err(error) => {
                    return Err(failed(&format!("the self-test was lost: {error}"), io::Error::other("")));
                }
            }
        }
    }
}
