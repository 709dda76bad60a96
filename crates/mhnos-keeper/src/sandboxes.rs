//! The sandboxes there are: the workspace's shared one, and one for each private process.

use std::{io, os::fd::OwnedFd};

use mhnos_sandbox::{
    Policy, namespaces,
    sys::{self, Fork},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    channel::{Failure, Stage},
    init,
    inner::{Execute, FromInit, ToInit},
    limits::SETUP_TIMEOUT,
    outbox::Outbox,
    socket::{Blocking, RecvError, Socket},
};

/// One sandbox, by its init. Dropping it closes init's channel, on which init ends and takes everything in
/// its pid namespace along.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) outbox: Outbox<ToInit>,
    /// Why the walls could not be put up, if so.
    pub(crate) failure: Option<Failure>,
}

impl Sandbox {
    /// Creates the init and returns at once; orders may be sent before it is ready.
    pub(crate) fn create(policy: &Policy) -> io::Result<Self> {
        let (ours, theirs) = Socket::pair(Blocking::No)?;
        match sys::fork(namespaces(policy))? {
            Fork::Child => init::run(&theirs, policy),
            Fork::Parent(_) => Ok(Self { outbox: Outbox::new(ours), failure: None }),
        }
    }

    /// Waits until the walls stand: for the first one, at start, which decides whether the service runs.
    pub(crate) fn wait_ready(&self) -> Result<(), Failure> {
        let timeout = Timespec { tv_sec: SETUP_TIMEOUT.as_secs() as i64, tv_nsec: 0 };
        let _ = poll(&mut [PollFd::new(&self.outbox, PollFlags::IN)], Some(&timeout));
        let lost = |detail: &str| Failure { stage: Stage::Sandbox, errno: 0, detail: detail.to_owned() };
        match self.outbox.recv::<FromInit>() {
            Ok(received) => match received.message {
                FromInit::Ready => Ok(()),
                FromInit::SetupFailed(failure) => Err(failure),
            },
            Err(RecvError::WouldBlock) => Err(lost("the sandbox did not come up in time")),
            Err(error) => Err(lost(&format!("the sandbox's init ended early: {error}"))),
        }
    }

    pub(crate) fn execute(&mut self, order: Execute, fds: Vec<OwnedFd>) -> io::Result<()> {
        self.outbox.send(ToInit::Execute(order), fds)
    }
}
