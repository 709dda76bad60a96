//! The kernel's word that a control group of version 1 is out of memory.
//!
//! Version 2 kills all that is in such a group (`memory.oom.group`); version 1 kills one process, and whoever started that
//! goes on without it. It gives an event, though, just before it kills, to whoever asked for it: that costs nothing until
//! it happens (memory.txt of the kernel's admin-guide/cgroup-v1, "OOM Control").

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// A descriptor that becomes readable when the group is out of memory, and stays so: nobody reads it.
#[derive(Debug)]
pub struct Word(OwnedFd);

impl Word {
    /// Asks for that of the group in this directory; `None` where the kernel gives no such events.
    pub(super) fn of(dir: &Path) -> io::Result<Option<Self>> {
        let about = match fs::File::open(dir.join("memory.oom_control")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let request = format!("{} {}", event.as_raw_fd(), about.as_raw_fd());
        fs::write(dir.join("cgroup.event_control"), request)?;
        Ok(Some(Self(event)))
    }

    /// Whether it has been given.
    pub(super) fn is_given(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }
}

impl AsFd for Word {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
