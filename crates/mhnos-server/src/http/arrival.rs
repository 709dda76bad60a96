//! A connection before it is known what it becomes: a WebSocket, the client of a preview, or one question and its answer.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::Front;
use crate::{
    door::one_client,
    places::{Full, Place, Visit},
    preview::Exchanges,
};

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) peer: SocketAddr,
    /// With previews; they also say how long the connection may take.
    pub(crate) exchanges: Exchanges,
    /// In the hall, until it stays.
    pub(crate) visit: Visit,
    standing: Mutex<Standing>,
}

#[derive(Debug)]
enum Standing {
    /// With a second descriptor of the connection to tell a slow client by, whoever owns the first.
    Waiting(Option<OwnedFd>),
    Staying {
        _place: Place<IpAddr>,
    },
}

impl Arrival {
    pub(crate) fn new(front: &Front, peer: SocketAddr) -> Self {
        let visit = front.hall.enter();
        Self { peer, exchanges: Exchanges::new(), visit, standing: Mutex::new(Standing::Waiting(None)) }
    }

    /// One that is told by `socket` if it is slow.
    pub(crate) fn told_by(self, socket: Option<OwnedFd>) -> Self {
        Self { standing: Mutex::new(Standing::Waiting(socket)), ..self }
    }

    /// By what it can be told that it is slow; once.
    pub(crate) fn socket(&self) -> Option<OwnedFd> {
        match &mut *self.standing() {
            Standing::Waiting(socket) => socket.take(),
            Standing::Staying { .. } => None,
        }
    }

    /// It asks for a preview, and may go on doing so: it takes a place, if it has none yet, and leaves the hall. From then
    /// on it has one descriptor, as those have that are counted with it.
    pub(super) fn stay(&self, front: &Front) -> Result<(), Full> {
        let mut standing = self.standing();
        if matches!(*standing, Standing::Waiting(_)) {
            *standing = Standing::Staying { _place: front.places.take(one_client(self.peer.ip()))? };
            self.visit.leave();
        }
        Ok(())
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
