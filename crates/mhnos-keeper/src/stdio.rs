//! A program's descriptors, as its supervisor connects them inside the sandbox.

use std::{io, os::fd::OwnedFd};

use mhnos_sandbox::{
    Stdio, WindowSize,
    confine::{self, Descriptors},
};
use rustix::{
    fs::{OFlags, fcntl_setfl},
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{InputModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize},
};

/// The program's descriptors, and the master of its terminal if it has one.
pub(crate) fn connect(
    stdio: Stdio,
    fds: Vec<(u32, OwnedFd)>,
    doors: Vec<OwnedFd>,
) -> io::Result<(Descriptors, Option<OwnedFd>)> {
    let mut given: [Option<OwnedFd>; 3] = [None, None, None];
    let mut extra = Vec::new();
    for (number, fd) in fds {
        match given.get_mut(number as usize) {
            Some(place) => *place = Some(fd),
            None => extra.push((number, fd)),
        }
    }
    match stdio {
        Stdio::Pipes { .. } => {
            let [zero, one, two] = given.map(|fd| fd.map_or_else(confine::null, Ok));
            Ok((Descriptors { stdio: [zero?, one?, two?], extra, terminal: false, doors }, None))
        }
        Stdio::Pty(size) => {
            let (master, terminal) = open_terminal(size)?;
            let stdio = [terminal.try_clone()?, terminal.try_clone()?, terminal];
            Ok((Descriptors { stdio, extra, terminal: true, doors }, Some(master)))
        }
    }
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
