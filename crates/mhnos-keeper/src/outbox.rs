//! A channel that never makes the keeper wait: what the other end is too busy to take is queued, in order
//! and within a bound. So is what cannot be sent because too many descriptors are on their way.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    limits::MAX_OUTBOX,
    socket::{Received, RecvError, Socket, too_many_on_their_way},
};

/// What goes with a message. Whoever else holds one needs no duplicate, which may not be to be had, and leaves it open.
pub(crate) type Attached = Vec<Rc<OwnedFd>>;

/// One end of a channel, with what waits to be sent.
#[derive(Debug)]
pub(crate) struct Outbox<T> {
    socket: Socket,
    queue: VecDeque<(T, Attached)>,
}

impl<T: Serialize> Outbox<T> {
    pub(crate) fn new(socket: Socket) -> Self {
        Self { socket, queue: VecDeque::new() }
    }

    /// Sends now or later. An error means that the other end is gone, or hopelessly behind: the same thing.
    pub(crate) fn send(&mut self, message: T, fds: Attached) -> io::Result<()> {
        if self.queue.len() >= MAX_OUTBOX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.queue.push_back((message, fds));
        self.flush()
    }

    /// Sends what the other end takes now.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while let Some((message, fds)) = self.queue.front() {
            let borrowed: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
            match self.socket.send(message, &borrowed) {
                Ok(()) => drop(self.queue.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if too_many_on_their_way(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether something waits for the other end to read.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// How many messages do.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn recv<R: DeserializeOwned>(&self) -> Result<Received<R>, RecvError> {
        self.socket.recv()
    }

    pub(crate) fn recv_words<R: DeserializeOwned>(&self) -> Result<Received<R>, RecvError> {
        self.socket.recv_words()
    }
}

impl<T> AsFd for Outbox<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
