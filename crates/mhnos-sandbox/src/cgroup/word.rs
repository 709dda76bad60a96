//! The kernel's word that a control group of version 1 is out of memory.
//!
//! Version 2 kills all that is in such a group (`memory.oom.group`); version 1 kills one process, and whoever started that
//! goes on without it. It gives an event, though, just before it kills, to whoever asked for it, and to those of all groups
//! below the one that is out of memory: that costs nothing until it happens (memory.txt of the kernel's admin-guide/cgroup-v1, "OOM Control").

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::event::{EventfdFlags, eventfd};

/// A descriptor that becomes readable when the group is out of memory, or one above it.
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

    /// Takes it, to hear the next; false if there was none.
    pub fn take(&self) -> bool {
        rustix::io::read(&self.0, &mut [0; 8]).is_ok()
    }
}

impl AsFd for Word {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
