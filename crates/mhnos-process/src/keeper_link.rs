//! The channel to the keeper, for tasks.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use mhnos_keeper::{
    channel::{FromKeeper, ToKeeper},
    socket::{Received, RecvError, Socket, too_many_on_their_way},
};
use tokio::{io::Interest, time::sleep};

use crate::{
    limits::TOO_MANY_PAUSE,
    watched::{Watched, watch},
};

/// Our end. Datagrams are whole, so any task may send; one receives.
#[derive(Debug)]
pub(crate) struct KeeperLink {
    socket: Socket,
    /// A duplicate, to wait for what comes. For room nobody waits but who has found none: the kernel would tell of it
    /// after each message, and wake a thread.
    incoming: Watched,
}

/// Whether the same message may be sent later.
fn is_busy(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || too_many_on_their_way(error)
}

impl KeeperLink {
    /// Takes over an inherited end, and makes it non-blocking.
    pub(crate) fn new(channel: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&channel, true)?;
        let socket = Socket::from_fd(channel);
        let incoming = watch(socket.as_fd().try_clone_to_owned()?, Interest::READABLE)?;
        Ok(Self { socket, incoming })
    }

    /// Sends one message, waiting for room if there is none.
    ///
    /// # Cancel safety
    /// It was sent whole or not at all.
    pub(crate) async fn send(&self, message: &ToKeeper) -> io::Result<()> {
        match self.socket.send(message, &[]) {
            Err(error) if is_busy(&error) => {}
            other => return other,
        }
        let room = watch(self.socket.as_fd().try_clone_to_owned()?, Interest::WRITABLE)?;
        loop {
            let mut ready = room.writable().await?;
            match self.socket.send(message, &[]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                // A long message is a descriptor.
                Err(error) if too_many_on_their_way(&error) => sleep(TOO_MANY_PAUSE).await,
                other => return other,
            }
        }
    }

    /// Receives one message.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn recv(&self) -> Result<Received<FromKeeper>, RecvError> {
        loop {
            let mut ready = self.incoming.readable().await.map_err(RecvError::Io)?;
            match self.socket.recv() {
                Err(RecvError::WouldBlock) => ready.clear_ready(),
                other => return other,
            }
        }
    }
}
