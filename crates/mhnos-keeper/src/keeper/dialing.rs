//! Connections into a process's network: passed on to its supervisor, and what that has connected to the bridge.
//! The keeper remembers none of them; how many may be on their way is bounded on both legs.

use std::{os::fd::OwnedFd, rc::Rc};

use super::Keeper;
use crate::{
    channel::{DialFailure, FromKeeper, Pid},
    held::{Held, Phase},
    inner::ToSupervisor,
    limits::{MAX_DIALS, MAX_WAITING_DIALS},
};

impl Keeper {
    pub(super) fn dial(&mut self, pid: Pid, token: u32, port: u16) {
        let asked = match self.held.get_mut(&pid) {
            Some(Held { dials: MAX_DIALS.., .. }) => Err(DialFailure::Busy),
            Some(Held { phase: Phase::Running { control, .. }, dials, .. }) => {
                let sent = control.send(ToSupervisor::Dial { token, port }, Vec::new());
                sent.map(|()| *dials += 1).map_err(|_| DialFailure::Gone)
            }
            _ => Err(DialFailure::Gone),
        };
        if let Err(failure) = asked {
            self.tell(FromKeeper::Dialed { token, outcome: Err(failure) }, Vec::new());
        }
    }

    pub(super) fn dialed(&mut self, pid: Pid, token: u32, errno: i32, socket: Option<OwnedFd>) {
        if let Some(held) = self.held.get_mut(&pid) {
            held.dials = held.dials.saturating_sub(1);
        }
        let waiting = self.bridge.as_ref().map_or(0, |bridge| bridge.outbox.waiting());
        let (outcome, fds) = match (errno, socket) {
            (0, Some(_)) if waiting >= MAX_WAITING_DIALS => (Err(DialFailure::Busy), Vec::new()),
            (0, Some(socket)) => (Ok(()), vec![Rc::new(socket)]),
            // This process has as many descriptors as it may, and the connection was none of them.
            (0, None) => (Err(DialFailure::Failed(libc::EMFILE)), Vec::new()),
            (libc::ECONNREFUSED, _) => (Err(DialFailure::Refused), Vec::new()),
            (errno, _) => (Err(DialFailure::Failed(errno)), Vec::new()),
        };
        self.tell(FromKeeper::Dialed { token, outcome }, fds);
    }
}
