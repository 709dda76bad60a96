//! The process of a program to come: forked before it is known which, it joins its control group, gives up what
//! a program does not have, and waits for its supervisor's word.
//!
//! The channel between the two closes at exec: its end without a message means that the program runs. A
//! supervisor that ends takes the process along.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use mhnos_sandbox::{
    Stdio, Walls, WindowSize,
    confine::{self, Descriptors, Prepared, StartError},
    sys::{self, Fork, Namespaces},
};
use rustix::{
    fs::{OFlags, fcntl_setfl},
    io::fcntl_dupfd_cloexec,
    process::{Pid, WaitId, WaitIdOptions, waitid},
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{InputModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize},
};

use crate::{
    channel::{Failure, Stage},
    inner::{Execute, FromProgram, Payload, failure},
    socket::{Blocking, RecvError, Socket},
};

/// A process that waits to become a program.
pub(crate) struct Recruit {
    pid: Pid,
    channel: Socket,
}

impl Recruit {
    /// Forks it; `doors` are those of its control group.
    pub(crate) fn fork(doors: &[OwnedFd], walls: &Walls) -> Result<Self, Failure> {
        let failed = |error| os(Stage::Fork, "create the process", &error);
        let (channel, theirs) = Socket::pair(Blocking::Yes).map_err(failed)?;
        match sys::fork(Namespaces::NONE).map_err(failed)? {
            Fork::Child => {
                // Its number must not be one that the program is given.
                let Ok(theirs) = fcntl_dupfd_cloexec(&theirs, confine::FIRST_FREE).map(Socket::from_fd)
                else {
                    sys::exit_now(127)
                };
                let own = std::iter::once(theirs.as_fd()).chain(doors.iter().map(AsFd::as_fd));
                let kept: Vec<_> = own.chain(walls.descriptors()).collect();
                if sys::close_all_but(&kept).is_ok() {
                    let failure = serve(&theirs, doors, walls);
                    let _ = theirs.send(&FromProgram::Failed(failure), &[]);
                }
                sys::exit_now(127)
            }
            Fork::Parent(pid) => Ok(Self { pid, channel }),
        }
    }

    /// Makes it the program, and waits until it is. With a terminal, its master is returned too: it is one of
    /// the sandbox's own devpts, so that `tty` names a device that exists.
    pub(crate) fn start(self, mut order: Execute, mut fds: Vec<OwnedFd>) -> Result<Started, Failure> {
        let mut master = None;
        if let Stdio::Pty(size) = order.stdio {
            let (own, terminal) =
                open_terminal(size).map_err(|error| os(Stage::Stdio, "open a terminal", &error))?;
            master = Some(own);
            order.slots.push(0);
            fds.push(terminal);
        }
        let attached: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let sent = self.channel.send(&order, &attached);
        // The program's ends must be its own alone, or nobody would see it close them.
        drop(fds);
        if sent.is_err() {
            // It may have failed, and said why; or it waits for a word that does not come.
            let _ = sys::kill(self.pid, libc::SIGKILL);
        }
        self.outcome()?;
        match sent {
            Ok(()) => Ok(Started { leader: self.pid, master }),
            Err(error) => Err(os(Stage::Fork, "tell the process what to become", &error)),
        }
    }

    /// Whether it has ended. It is not reaped by this.
    pub(crate) fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(self.pid), options), Ok(None))
    }

    /// Waits for its end or its exec, and tells what it said of why it failed.
    pub(crate) fn outcome(&self) -> Result<(), Failure> {
        let mut again = false;
        loop {
            match self.channel.recv::<FromProgram>() {
                Ok(received) => {
                    let FromProgram::Failed(failure) = received.message;
                    return Err(failure);
                }
                Err(RecvError::Malformed(what)) => {
                    return Err(os(Stage::Confine, what, &io::ErrorKind::InvalidData.into()));
                }
                Err(_) if again => return Ok(()),
                // An order that it has not read makes the first answer an error, before what it has written.
                Err(_) => again = true,
            }
        }
    }
}

/// A program that runs.
pub(crate) struct Started {
    pub(crate) leader: Pid,
    pub(crate) master: Option<OwnedFd>,
}

fn os(stage: Stage, detail: &str, error: &io::Error) -> Failure {
    Failure { stage, errno: error.raw_os_error().unwrap_or(0), detail: detail.to_owned() }
}

/// In the new process: gets ready, waits, becomes the program. Returns only on failure.
fn serve(channel: &Socket, doors: &[OwnedFd], walls: &Walls) -> Failure {
    if let Err(error) = confine::get_ready(doors, walls) {
        return failure(Stage::Confine, &error);
    }
    // Without a supervisor there is nobody to tell.
    let Ok(received) = channel.recv::<Execute>() else { sys::exit_now(0) };
    let order = received.message;
    let fds = match connect(order.stdio, order.slots.iter().copied().zip(received.fds)) {
        Ok(fds) => fds,
        Err(error) => return os(Stage::Stdio, "connect descriptors", &error),
    };
    match &order.payload {
        Payload::SelfTest(outside) => {
            match confine::become_self_test(fds, &order.limits, order.nproc, walls, outside) {
                Ok(()) => sys::exit_now(0),
                Err(error) => failure(Stage::Confine, &error),
            }
        }
        Payload::Program(launch) => match Prepared::new(launch) {
            Ok(program) => {
                start_failure(&confine::become_program(&program, fds, &order.limits, order.nproc, walls))
            }
            Err(error) => os(Stage::Order, "arguments must not contain NUL bytes", &error),
        },
    }
}

fn start_failure(error: &StartError) -> Failure {
    match error {
        StartError::Confine(error) => failure(Stage::Confine, error),
        StartError::Chdir(error) => failure(Stage::Chdir, error),
        StartError::Exec(error) => failure(Stage::Exec, error),
    }
}

fn connect(stdio: Stdio, fds: impl Iterator<Item = (u32, OwnedFd)>) -> io::Result<Descriptors> {
    let mut given: [Option<OwnedFd>; 3] = [None, None, None];
    let mut extra = Vec::new();
    for (number, fd) in fds {
        match given.get_mut(number as usize) {
            Some(place) => *place = Some(fd),
            None => extra.push((number, fd)),
        }
    }
    let [zero, one, two] = given;
    let zero = zero.map_or_else(confine::null, Ok)?;
    let stdio_fds = match stdio {
        Stdio::Pty(_) => [zero.try_clone()?, zero.try_clone()?, zero],
        Stdio::Pipes { .. } => {
            let [one, two] = [one, two].map(|fd| fd.map_or_else(confine::null, Ok));
            [zero, one?, two?]
        }
    };
    Ok(Descriptors { stdio: stdio_fds, extra, terminal: matches!(stdio, Stdio::Pty(_)) })
}

/// A pseudo-terminal of the sandbox's own devpts, so that `tty` names a device that exists.
fn open_terminal(size: WindowSize) -> io::Result<(OwnedFd, OwnedFd)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    unlockpt(&master)?;
    let terminal =
        ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    let size = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&master, size)?;
    let mut modes = tcgetattr(&terminal)?;
    // Erasing deletes a character, not a byte.
    modes.input_modes |= InputModes::IUTF8;
    tcsetattr(&terminal, OptionalActions::Now, &modes)?;
    fcntl_setfl(&master, OFlags::NONBLOCK)?;
    Ok((master, terminal))
}
