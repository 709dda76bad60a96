//! What a viewer is told of a process's ports: what has changed since it was told last.

use std::sync::Arc;

use mhnos_process::{Port, Process};
use mhnos_protocol as wire;

use super::{Base, Previews};

/// What one viewer of one process knows.
#[derive(Debug)]
pub(crate) struct PortEvents {
    previews: Arc<Previews>,
    base: Base,
    /// As the process showed them last.
    seen: Arc<[Port]>,
    told: Vec<wire::OpenPort>,
}

impl PortEvents {
    pub(crate) fn new(previews: Arc<Previews>, base: Base) -> Self {
        Self { previews, base, seen: Arc::new([]), told: Vec::new() }
    }

    /// The events that are due. Costs next to nothing if there are none.
    pub(crate) fn due(&mut self, process: &Process) -> Vec<wire::Event> {
        let now = process.ports();
        if Arc::ptr_eq(&now, &self.seen) {
            return Vec::new();
        }
        self.seen = now;
        let open = self.previews.ports(self.base, process);
        let event = |port: &wire::OpenPort, state| {
            let wire::OpenPort { pid, port, url } = port.clone();
            wire::Event::Port(wire::Port { pid, port, url, state })
        };
        let gone = self.told.iter().filter(|port| !open.contains(port));
        let new = open.iter().filter(|port| !self.told.contains(port));
        let closed = gone.map(|port| event(port, wire::PortState::Closed));
        let events = closed.chain(new.map(|port| event(port, wire::PortState::Open))).collect();
        self.told = open;
        events
    }

    /// Whether some port is open as far as the viewer knows.
    pub(crate) fn any_open(&self) -> bool {
        !self.told.is_empty()
    }
}
