//! What programs are refused outside, told to a client who asked for it.
//!
//! One watch for a connection, whatever it has asked for. A refusal in a sandbox that processes share may be any of
//! theirs, so whoever asked about one of them is told.

use mhnos_network::{Refusals, Refused};
use mhnos_process::{Isolation, Pid};
use mhnos_protocol::Event;

use super::{
    lane::{Lane, Watched},
    outbox::Item,
};
use crate::translate;

impl Lane<'_> {
    /// Tells of what this process is refused from now on, if refusals are given, else no longer.
    pub(super) fn watch_egress(&mut self, pid: Pid, refusals: Option<Refusals>) {
        let Some(refusals) = refusals else {
            self.egress.remove(&pid);
            return;
        };
        self.egress.insert(pid);
        if !std::mem::replace(&mut self.watches_egress, true) {
            self.watches.push(Box::pin(next(refusals)));
        }
    }

    /// Acts on a refusal, and waits for the next as long as somebody is asked about.
    pub(super) fn refused_outside(&mut self, refused: &Refused, refusals: Refusals) {
        self.tell_egress(refused);
        self.watches_egress = !self.egress.is_empty();
        if self.watches_egress {
            self.watches.push(Box::pin(next(refusals)));
        }
    }

    /// Tells of it if one of those asked about may have been meant. Those that are over are asked about no more.
    fn tell_egress(&mut self, refused: &Refused) {
        let processes = &self.service.processes;
        let alive =
            |pid: &Pid| processes.get(*pid).filter(|process| process.exit().is_none() || process.lingers());
        self.egress.retain(|pid| alive(pid).is_some());
        let meant = self.egress.iter().any(|pid| match refused.owner.0 {
            Some(owner) => owner == *pid,
            None => alive(pid).is_some_and(|process| process.isolation() == Isolation::Shared),
        });
        if meant {
            self.outbox.push(Item::text(Event::Egress(translate::egress(refused)).to_json()));
        }
    }
}

async fn next(mut refusals: Refusals) -> Watched {
    let refused = refusals.next().await;
    Watched::Refused(refused, refusals)
}
