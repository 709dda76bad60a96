//! All processes in numbers, by type: for whoever watches the service.
//!
//! Nothing is counted while programs run. What is held is looked at when somebody asks; what has been forgotten
//! was added to a [`Tally`] at that moment, which is part of the service's note. So the totals go on over bridges.

use serde::{Deserialize, Serialize};

use super::table::Table;
use crate::{
    exit::{Reason, State},
    process::Process,
};

/// Totals of one type of process since the service began, over all bridges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Started.
    pub started: u64,
    /// Of those, ended, by reason in the order of [`Reason::ALL`].
    pub ended: [u64; Reason::ALL.len()],
    /// Bytes of output read from them.
    pub output_bytes: u64,
}

/// One type of process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// [`Info::process_type`](crate::Info::process_type).
    pub process_type: String,
    /// Since the service began.
    pub total: Tally,
    /// Ordered, not started yet.
    pub starting: u64,
    /// Running.
    pub running: u64,
    /// Asked to end.
    pub stopping: u64,
    /// Ended, with descendants that live or output that is held open.
    pub lingering: u64,
    /// Ended, and kept for late attaches.
    pub retained: u64,
    /// Viewers of any of them.
    pub viewers: u64,
    /// Bytes their output logs hold now.
    pub log_bytes: u64,
    /// Bytes their output logs could hold.
    pub log_capacity: u64,
}

impl Tally {
    /// Adds a process, whatever has become of it.
    pub(super) fn add(&mut self, process: &Process) {
        self.started += 1;
        self.output_bytes += process.end_position();
        if let Some(record) = process.exit() {
            self.ended[record.reason as usize] += 1;
        }
    }
}

impl Table {
    /// By type, in no order. Orders of an earlier bridge that are being started still have no type yet: they are
    /// only in [`Stats::active`](super::Stats::active).
    pub(super) fn census(&self) -> Vec<Census> {
        let mut all: Vec<Census> = Vec::new();
        for (process_type, tally) in self.forgotten() {
            place(&mut all, process_type).total = tally.clone();
        }
        for pending in self.pending() {
            place(&mut all, &pending.note.process_type).starting += 1;
        }
        for process in self.list(true) {
            let of = place(&mut all, &process.info.process_type);
            of.total.add(&process);
            match process.state() {
                State::Running => of.running += 1,
                State::Stopping { .. } => of.stopping += 1,
                State::Exited(_) if process.lingers() => of.lingering += 1,
                State::Exited(_) => of.retained += 1,
            }
            let log = process.log.occupancy();
            of.viewers += log.viewers;
            of.log_bytes += log.bytes;
            of.log_capacity += log.capacity;
        }
        all
    }
}

fn place<'a>(all: &'a mut Vec<Census>, process_type: &str) -> &'a mut Census {
    let index = all.iter().position(|of| of.process_type == process_type).unwrap_or_else(|| {
        all.push(Census { process_type: process_type.to_owned(), ..Census::default() });
        all.len() - 1
    });
    &mut all[index]
}
