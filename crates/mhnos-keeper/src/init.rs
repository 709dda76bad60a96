//! The first process of a sandbox: puts up the walls around itself, forks a supervisor for each program,
//! and reaps.
//!
//! Supervisors are child subreapers, so nothing should ever be re-parented to init. If something is, its
//! supervisor has been killed (by a program of the same user, say), and the tree is without its end: init
//! kills it, so that what the keeper reports as lost is really gone.
//!
//! Where programs can signal init (T3+ before Linux 6.12), one may stop it, and nothing would be started in its sandbox
//! any more. The keeper, as its parent, learns of that and has it go on; init takes that for the end of its sandbox.

use std::{
    collections::HashSet,
    os::fd::{AsFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

use mhnos_sandbox::{
    Entered, Policy, Walls, enter,
    sys::{self, Fork, Namespaces, Reap},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    net::{Shutdown, shutdown},
    process::{Pid, WaitId, WaitIdOptions, getpid, setpgid, waitid},
};

use crate::{
    channel::{Failure, Stage},
    heap,
    inner::{FromInit, ToInit, call_failure, failure},
    socket::{RecvError, Socket},
    supervisor,
    tree::children,
};

/// Serves as init; for a process just forked from the keeper in the policy's namespaces.
pub(crate) fn run(socket: &Socket, policy: &Policy, grouped: bool) -> ! {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        // A terminal's Ctrl-Z is for the keeper: what it stopped here would be taken for stopped by a program. The session
        // stays the keeper's, which so may have init go on whatever user that is; and if the keeper ends while it is stopped,
        // the kernel does.
        let apart = setpgid(None, None);
        let outcome = apart
            .map_err(|errno| call_failure(Stage::Sandbox, "take a process group of its own", &errno.into()))
            .and_then(|()| {
                let closed = sys::close_all_but(&[socket.as_fd()]);
                closed.map_err(|error| call_failure(Stage::Sandbox, "close the keeper's descriptors", &error))
            })
            .and_then(|()| enter(policy, grouped).map_err(|error| failure(Stage::Sandbox, &error)))
            .and_then(|entered| serve(socket, entered));
        if let Err(failure) = outcome {
            let _ = socket.send(&FromInit::SetupFailed(failure), &[]);
        }
    }));
    sys::exit_now(if outcome.is_ok() { 0 } else { 101 })
}

/// Until nobody needs the sandbox. An error is for before it is ready.
fn serve(socket: &Socket, Entered { walls, outlets }: Entered) -> Result<(), Failure> {
    // From inside a pid namespace nobody can stop init, but anybody could say this.
    let last: &[i32] = if is_pid_1() { &[] } else { &[libc::SIGCONT] };
    let signals = sys::signal_fd(&[&sys::HANDLED, last].concat())
        .map_err(|error| call_failure(Stage::Sandbox, "watch for signals", &error))?;
    let (kinds, sockets): (_, Vec<_>) = outlets.into_iter().unzip();
    let attached: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    let told = socket.send_patiently(&FromInit::Ready(kinds), &attached);
    told.map_err(|error| call_failure(Stage::Sandbox, "report to the keeper", &error))?;
    drop(sockets);
    heap::fill_holes();
    let mut supervisors = HashSet::new();
    loop {
        let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        let _ = poll(&mut fds, None);
        if signalled(&signals, libc::SIGCONT) {
            let _ = shutdown(socket, Shutdown::Both);
            for supervisor in &supervisors {
                let _ = sys::kill(*supervisor, libc::SIGKILL);
            }
            end(&signals, &mut supervisors);
            return Ok(());
        }
        reap(&mut supervisors);
        loop {
            match socket.recv::<ToInit>() {
                Ok(received) => {
                    let ToInit::Supervise = received.message;
                    supervise(received.fds, &walls, &mut supervisors);
                }
                Err(RecvError::WouldBlock) => break,
                Err(RecvError::Malformed(_)) => {}
                Err(RecvError::Closed | RecvError::Io(_)) => {
                    end(&signals, &mut supervisors);
                    return Ok(());
                }
            }
        }
    }
}

/// Nobody needs this sandbox any more. As PID 1 init takes everything along by ending. Elsewhere it stays until the
/// supervisors, whose channels closed with the keeper's end of them, have killed their trees.
fn end(signals: &OwnedFd, supervisors: &mut HashSet<Pid>) {
    while !is_pid_1() {
        if let Reap::NoChildren = reap(supervisors) {
            return;
        }
        let _ = poll(&mut [PollFd::new(signals, PollFlags::IN)], None);
        signalled(signals, libc::SIGCONT);
    }
}

fn is_pid_1() -> bool {
    getpid().as_raw_nonzero().get() == 1
}

/// Takes all signals that wait, and tells whether this one was among them.
fn signalled(signals: &OwnedFd, which: i32) -> bool {
    let mut found = false;
    while let Some(signal) = sys::next_signal(signals) {
        found |= signal == which;
    }
    found
}

/// Forks a supervisor.
fn supervise(fds: Vec<OwnedFd>, walls: &Walls, supervisors: &mut HashSet<Pid>) {
    match sys::fork(Namespaces::NONE) {
        Ok(Fork::Child) => supervisor::run(fds, walls),
        Ok(Fork::Parent(pid)) => {
            supervisors.insert(pid);
        }
        Err(error) => supervisor::could_not(fds, &error),
    }
}

/// Whether this child, or any of them, was stopped and has not gone on since.
pub(crate) fn is_stopped(child: WaitId<'_>) -> bool {
    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(child, options).is_ok_and(|stopped| stopped.is_some())
}

/// Reaps all that has ended and sees to what has lost its supervisor, or has one that was stopped. Never [`Reap::Ended`].
fn reap(supervisors: &mut HashSet<Pid>) -> Reap {
    // A program may be able to stop what supervises it, which then would neither end it nor hold it to its limits. A killed one
    // takes its tree along.
    if is_stopped(WaitId::All) {
        for supervisor in supervisors.iter().filter(|supervisor| is_stopped(WaitId::Pid(**supervisor))) {
            let _ = sys::kill(*supervisor, libc::SIGKILL);
        }
    }
    let mut ended = false;
    let rest = loop {
        match sys::reap() {
            Reap::Ended(child) => {
                supervisors.remove(&child.pid);
                ended = true;
            }
            rest => break rest,
        }
    };
    if ended {
        for orphan in children().into_iter().filter(|pid| !supervisors.contains(pid)) {
            let _ = sys::kill(orphan, libc::SIGKILL);
        }
    }
    rest
}
