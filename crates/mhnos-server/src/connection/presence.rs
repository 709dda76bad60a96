//! A connection as it is counted and written down: when it opened, whose it is, how it ended.

use std::time::Instant;

use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{Dialect, End};
use crate::{
    audit::{Event, Who},
    metrics::{Client, Cut, Label},
    service::Service,
};

/// An open connection; closed when it is dropped.
pub(super) struct Presence<'s> {
    service: &'s Service,
    who: Who,
    client: Client,
    since: Instant,
}

impl<'s> Presence<'s> {
    pub(super) fn begin(service: &'s Service, who: Who, dialect: Dialect) -> Self {
        let client = match dialect {
            Dialect { web_os: true, .. } => Client::WebOs,
            Dialect { binary: true, .. } => Client::Binary,
            Dialect { .. } => Client::Text,
        };
        service.metrics.opened.add(client, 1);
        service.audit.tell(Some(&who), &Event::Connect { client: client.name() });
        Self { service, who, client, since: Instant::now() }
    }

    /// Whose it is.
    pub(super) fn who(&self) -> &Who {
        &self.who
    }

    pub(super) fn ends(&self, end: &End) {
        let cut = match end {
            End::Left => Cut::Left,
            End::Unwritable => Cut::Unwritable,
            End::Silent => Cut::Silent,
            End::Broken(CloseCode::Size, _) => Cut::TooLarge,
            End::Broken(..) => Cut::Broken,
            End::Stopping => Cut::Stopping,
            End::Revoked => Cut::Revoked,
        };
        self.service.metrics.ended.add(cut, 1);
        let duration_ms = self.since.elapsed().as_millis() as u64;
        self.service.audit.tell(Some(&self.who), &Event::Disconnect { reason: cut.name(), duration_ms });
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.service.metrics.closed.add(self.client, 1);
    }
}
