//! Descriptors that tasks wait for.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use tokio::io::{Interest, unix::AsyncFd};

/// A descriptor registered with the runtime. Must be non-blocking.
pub(crate) type Watched = AsyncFd<OwnedFd>;

/// Registers a descriptor. Must be called in the runtime.
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<Watched> {
    register(fd, interest)
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for types that may change their descriptor; an OwnedFd, or an Arc of one, never does"
)]
fn register<T: std::os::fd::AsRawFd>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(fd, interest)
}

/// A descriptor that is read from. While there is plenty to read the runtime is not to be told so: it would wake one of
/// its threads for each write of the program (and for a terminal twice), which that thread has no use for.
#[derive(Debug)]
pub(crate) struct Inlet {
    fd: Arc<OwnedFd>,
    /// Its registration; none while nobody is told.
    told: Option<Arc<AsyncFd<Arc<OwnedFd>>>>,
}

impl Inlet {
    /// Must be called in the runtime; `fd` must be non-blocking.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let mut inlet = Self { fd: Arc::new(fd), told: None };
        inlet.tell_anew()?;
        Ok(inlet)
    }

    /// Its registration, if somebody is told.
    pub(crate) fn told(&self) -> Option<Arc<AsyncFd<Arc<OwnedFd>>>> {
        self.told.clone()
    }

    /// There is plenty.
    pub(crate) fn hush(&mut self) {
        self.told = None;
    }

    /// Registers it anew: what there is to read at that moment is told as well, and what has been told is forgotten.
    pub(crate) fn tell_anew(&mut self) -> io::Result<()> {
        self.told = None;
        self.told = Some(Arc::new(register(self.fd.clone(), Interest::READABLE)?));
        Ok(())
    }
}

impl AsFd for Inlet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
