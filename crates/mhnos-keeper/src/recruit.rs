//! The process of a program to come: forked by its supervisor before it is known which, it joins its control group,
//! gives up what a program does not have, and waits for the keeper's order.
//!
//! The channel between the two closes at exec: its end without a failure means that the program runs, or has ended
//! before it could, which its supervisor tells. So a start waits for nobody but the process that starts. A supervisor
//! that ends takes the process along.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use mhnos_sandbox::{
    Stdio, Walls, WindowSize,
    confine::{self, Descriptors, Prepared, StartError},
    sys::{self, Fork, Namespaces},
};
use rustix::{
    fs::{OFlags, fcntl_setfl},
    io::fcntl_dupfd_cloexec,
    process::{Pid, getpid},
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{InputModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize},
};

use crate::{
    channel::{Failure, Stage},
    inner::{Execute, FromRecruit, Payload, call_failure, failure},
    outbox::{Attached, Outbox},
    socket::{Blocking, RecvError, Socket},
};

/// A process that will become a program, seen by the keeper.
#[derive(Debug)]
pub(crate) struct Recruit {
    channel: Outbox<Execute>,
    os_pid: Option<i32>,
    master: Option<OwnedFd>,
}

/// A program that runs.
#[derive(Debug)]
pub(crate) struct Started {
    /// The sandbox's pid of it.
    pub(crate) os_pid: i32,
    /// Of its terminal, which is one of the sandbox's own devpts, so that `tty` names a device that exists.
    pub(crate) master: Option<OwnedFd>,
}

/// How far a start has come.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Nothing is known.
    NotYet,
    /// It runs, or has ended.
    Started(Started),
    /// It could not.
    Failed(Failure),
    /// There is no process that could; its supervisor, or the end of that, tells why.
    Lost,
}

impl Recruit {
    /// One that is to be forked, and its end of the channel, for [`fork`].
    pub(crate) fn expect() -> io::Result<(Self, OwnedFd)> {
        let (channel, its) = Socket::pair(Blocking::No)?;
        Ok((Self { channel: Outbox::new(channel), os_pid: None, master: None }, its.into_fd()))
    }

    /// Whether it waits for an order, as far as is known. Something inside may have killed it, or it may have failed.
    pub(crate) fn waits(&mut self) -> bool {
        matches!(self.outcome(), Outcome::NotYet)
    }

    /// Has it become the program, and returns at once. The descriptors, the program's ends, must be its own alone: or nobody
    /// would see it close them.
    pub(crate) fn order(&mut self, order: Execute, fds: Attached) -> Result<(), Failure> {
        self.channel.send(order, fds).map_err(|error| match self.outcome() {
            Outcome::Failed(failure) => failure,
            Outcome::NotYet | Outcome::Started(_) | Outcome::Lost => {
                call_failure(Stage::Fork, "tell the process what to become", &error)
            }
        })
    }

    /// Sends the order if it still waits for that.
    pub(crate) fn flush(&mut self) {
        // What has gone wrong is the outcome.
        let _ = self.channel.flush();
    }

    /// Whether the order waits to be sent.
    pub(crate) fn is_waiting(&self) -> bool {
        self.channel.is_waiting()
    }

    /// Whether it has become the program.
    pub(crate) fn outcome(&mut self) -> Outcome {
        loop {
            match self.channel.recv::<FromRecruit>() {
                Ok(received) => match received.message {
                    FromRecruit::Ready { os_pid } => self.os_pid = Some(os_pid),
                    FromRecruit::Terminal => self.master = received.fds.into_iter().next(),
                    FromRecruit::Failed(failure) => return Outcome::Failed(failure),
                },
                Err(RecvError::WouldBlock) => return Outcome::NotYet,
                Err(RecvError::Malformed(what)) => {
                    let error = io::ErrorKind::InvalidData.into();
                    return Outcome::Failed(call_failure(Stage::Confine, what, &error));
                }
                // At exec, or at its end.
                Err(RecvError::Closed | RecvError::Io(_)) => {
                    let master = self.master.take();
                    return match self.os_pid {
                        Some(os_pid) => Outcome::Started(Started { os_pid, master }),
                        None => Outcome::Lost,
                    };
                }
            }
        }
    }
}

impl AsFd for Recruit {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// Forks it, for its supervisor; `channel` is its end of that to the keeper, and nobody else's, so that it closes at exec;
/// `doors` are those of its control group.
pub(crate) fn fork(channel: OwnedFd, doors: &[OwnedFd], walls: &Walls) -> Result<Pid, Failure> {
    match sys::fork(Namespaces::NONE)
        .map_err(|error| call_failure(Stage::Fork, "create the process", &error))?
    {
        Fork::Child => {
            let first = Socket::from_fd(channel);
            // Its number must not be one that the program is given.
            match fcntl_dupfd_cloexec(&first, confine::FIRST_FREE).map(Socket::from_fd) {
                Ok(channel) => {
                    drop(first);
                    let failure = serve(&channel, doors, walls);
                    tell(&channel, failure);
                }
                Err(errno) => tell(&first, call_failure(Stage::Fork, "set its channel apart", &errno.into())),
            }
            sys::exit_now(127)
        }
        Fork::Parent(pid) => Ok(pid),
    }
}

/// Without a keeper there is nobody to tell.
fn tell(channel: &Socket, failure: Failure) {
    let _ = channel.send(&FromRecruit::Failed(failure), &[]);
}

/// In the new process: gets ready, waits, becomes the program. Returns only on failure.
fn serve(channel: &Socket, doors: &[OwnedFd], walls: &Walls) -> Failure {
    let own = std::iter::once(channel.as_fd()).chain(doors.iter().map(AsFd::as_fd));
    let kept: Vec<_> = own.chain(walls.descriptors()).collect();
    if let Err(error) = sys::close_all_but(&kept) {
        return call_failure(Stage::Fork, "close its supervisor's descriptors", &error);
    }
    if let Err(error) = confine::get_ready(doors, walls) {
        return failure(Stage::Confine, &error);
    }
    let ready = FromRecruit::Ready { os_pid: getpid().as_raw_nonzero().get() };
    if let Err(error) = fcntl_setfl(channel, OFlags::empty())
        .map_err(io::Error::from)
        .and_then(|()| channel.send(&ready, &[]))
    {
        return call_failure(Stage::Fork, "report to the keeper", &error);
    }
    // Without a keeper there is nobody to tell.
    let Ok(received) = channel.recv::<Execute>() else { sys::exit_now(0) };
    let order = received.message;
    let terminal = match order.stdio {
        Stdio::Pty(size) => match give_terminal(channel, size) {
            Ok(terminal) => Some((0, terminal)),
            Err(error) => return call_failure(Stage::Stdio, "open a terminal", &error),
        },
        Stdio::Pipes { .. } => None,
    };
    let fds = order.slots.iter().copied().zip(received.fds).chain(terminal);
    let fds = match connect(order.stdio, fds) {
        Ok(fds) => fds,
        Err(error) => return call_failure(Stage::Stdio, "connect descriptors", &error),
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
            Err(error) => call_failure(Stage::Order, "arguments must not contain NUL bytes", &error),
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

/// A terminal; the keeper is given its master.
fn give_terminal(channel: &Socket, size: WindowSize) -> io::Result<OwnedFd> {
    let (master, terminal) = open_terminal(size)?;
    channel.send_patiently(&FromRecruit::Terminal, &[master.as_fd()])?;
    Ok(terminal)
}

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
