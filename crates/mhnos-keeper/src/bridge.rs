//! The bridge as the keeper sees it: started, watched, started again.

use std::{
    io,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use mhnos_sandbox::{
    stage,
    sys::{self, CStrings, Fork, Namespaces},
};
use rustix::{
    io::fcntl_dupfd_cloexec,
    process::{Pid, Signal, set_parent_process_death_signal},
};

use crate::{
    channel::{CHANNEL_VERSION, FromKeeper},
    limits::{HEALTHY_BRIDGE, HELLO_TIMEOUT, MAX_BRIDGE_BACKOFF},
    outbox::Outbox,
    settings::{BRIDGE_CHANNEL_FD, BridgeCommand},
    socket::{Blocking, Socket},
};

/// A bridge that has been started.
#[derive(Debug)]
pub(crate) struct Bridge {
    pub(crate) pid: Pid,
    pub(crate) outbox: Outbox<FromKeeper>,
    /// It has said hello and been told what there is.
    pub(crate) greeted: bool,
    /// When it should have, at the latest, if there is another program to go back to.
    pub(crate) hello_due: Instant,
    started: Instant,
}

impl Bridge {
    /// Starts one. The child is this process's program anew, so that it inherits no memory.
    pub(crate) fn start(command: &BridgeCommand) -> io::Result<Self> {
        let (ours, theirs) = Socket::pair(Blocking::No)?;
        let channel = format!("--channel={CHANNEL_VERSION}");
        let number = format!("--program={}", command.number);
        let files_as = command.files_as.map(|account| format!("--files-as={}:{}", account.uid, account.gid));
        let argv = CStrings::new(
            command.argv.iter().chain([&channel, &number]).chain(&files_as).map(String::as_str),
        )?;
        let env = CStrings::new(command.env.iter().cloned())?;
        match sys::fork(Namespaces::NONE)? {
            Fork::Child => {
                let _ = execute(command, &theirs, &argv, &env);
                sys::exit_now(126)
            }
            Fork::Parent(pid) => {
                let started = Instant::now();
                let hello_due = started + HELLO_TIMEOUT;
                Ok(Self { pid, outbox: Outbox::new(ours), greeted: false, hello_due, started })
            }
        }
    }

    /// How long to wait before the next start, after `failures` bridges in a row that did not live long.
    pub(crate) fn backoff(failures: u32) -> Duration {
        if failures == 0 {
            return Duration::ZERO;
        }
        Duration::from_millis(10)
            .saturating_mul(2_u32.saturating_pow(failures.min(16)))
            .min(MAX_BRIDGE_BACKOFF)
    }

    pub(crate) fn was_healthy(&self) -> bool {
        self.started.elapsed() >= HEALTHY_BRIDGE
    }
}

/// In the child: places the descriptors and becomes the bridge.
fn execute(command: &BridgeCommand, channel: &Socket, argv: &CStrings, env: &CStrings) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // A session of its own: a terminal's Ctrl-C is for the keeper, which tells the bridge to drain.
    rustix::process::setsid()?;
    // Sources go above every target first, so that no placement covers a source.
    let above = BRIDGE_CHANNEL_FD + 1 + command.fds.len() as i32;
    let program = fcntl_dupfd_cloexec(&command.program, above)?;
    let all = std::iter::once(channel.as_fd()).chain(command.fds.iter().map(AsFd::as_fd));
    let moved = all.map(|fd| fcntl_dupfd_cloexec(fd, above)).collect::<Result<Vec<_>, _>>()?;
    sys::close_on_exec_from(BRIDGE_CHANNEL_FD as u32)?;
    for (fd, number) in moved.iter().zip(BRIDGE_CHANNEL_FD..) {
        sys::place(fd, number)?;
    }
    if command.files_as.is_some() {
        stage::lend_capabilities().map_err(|error| error.source)?;
    }
    sys::reset_signals();
    match sys::execve_file(&program, argv, env)? {}
}
