//! A connection before it is known what it becomes: a WebSocket, the client of a preview, or one question and its answer.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
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
    /// Taken when it stays.
    place: Mutex<Option<Place<IpAddr>>>,
}

impl Arrival {
    pub(crate) fn new(front: &Front, peer: SocketAddr) -> Self {
        let visit = front.hall.enter();
        Self { peer, exchanges: Exchanges::new(), visit, place: Mutex::default() }
    }

    /// It asks for a preview, and may go on doing so: it takes a place, if it has none yet, and leaves the hall.
    pub(super) fn stay(&self, front: &Front) -> Result<(), Full> {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_none() {
            *place = Some(front.places.take(one_client(self.peer.ip()))?);
            self.visit.leave();
        }
        Ok(())
    }
}
