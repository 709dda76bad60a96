//! Descriptors that tasks wait for.

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// A descriptor registered with the runtime. Must be non-blocking.
pub(crate) type Watched = AsyncFd<OwnedFd>;

/// Registers a descriptor. Must be called in the runtime.
#[expect(
    deprecated,
    reason = "its successor is unsafe for types that may change their descriptor; an OwnedFd never does"
)]
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<Watched> {
    AsyncFd::with_interest(fd, interest)
}
