//! What the bridge counts, for `/metrics`.
//!
//! A counter is one relaxed atomic addition, done once for a request, a connection or a batch of bytes, never
//! for each frame. What processes are and have done is not counted here: `mhnos-process` is asked when
//! somebody scrapes, and its totals go on over bridges. What is counted here begins at 0 with each bridge,
//! as counters may.
//!
//! Labels are variants of the enums of `labels`, so nobody can make series by what they send.

mod labels;
mod scrape;
mod text;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use mhnos_protocol::{ErrorCode, ProcessType, Request};

pub(crate) use self::{
    labels::{Client, Cut, Label, Refused, Way},
    scrape::{CONTENT_TYPE, scrape},
};

/// Upper bounds of the buckets of the time from a `spawn` to its `spawned`, in microseconds. A warm start takes
/// one to ten milliseconds; beyond a second something is wrong with the machine.
const SPAWN_BUCKETS: [u64; 12] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000,
];

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One counter for each value of a label.
#[derive(Debug)]
pub(crate) struct Family<L: Label>(Box<[(L, Counter)]>);

impl<L: Label> Default for Family<L> {
    fn default() -> Self {
        Self(L::all().map(|label| (label, Counter::default())).collect())
    }
}

impl<L: Label> Family<L> {
    pub(crate) fn add(&self, label: L, n: u64) {
        // A dozen values at most are looked at for a request: cheaper than to keep an index true.
        if let Some((_, counter)) = self.0.iter().find(|(known, _)| *known == label) {
            counter.add(n);
        }
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = (L, u64)> {
        self.0.iter().map(|(label, counter)| (*label, counter.get()))
    }
}

/// Durations by size.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// One for each bound of [`SPAWN_BUCKETS`], and one for all above.
    buckets: [Counter; SPAWN_BUCKETS.len() + 1],
    micros: Counter,
}

impl Histogram {
    pub(crate) fn observe(&self, took: Duration) {
        let micros = took.as_micros() as u64;
        self.buckets[SPAWN_BUCKETS.partition_point(|bound| *bound < micros)].add(1);
        self.micros.add(micros);
    }
}

/// All counters of a bridge.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// WebSockets opened, and those that have ended, by how.
    pub(crate) opened: Family<Client>,
    pub(crate) closed: Family<Client>,
    pub(crate) ended: Family<Cut>,
    /// Sockets turned away before they were WebSockets.
    pub(crate) refused: Family<Refused>,
    /// Payload bytes of messages.
    pub(crate) received_bytes: Counter,
    pub(crate) sent_bytes: Counter,
    requests: Family<labels::Asked>,
    errors: Family<ErrorCode>,
    spawn_failures: Family<ErrorCode>,
    spawn_time: [Histogram; ProcessType::ALL.len()],
    /// Bytes taken from clients for programs.
    pub(crate) input_bytes: Counter,
    /// What programs wanted to reach and may not.
    pub(crate) egress_refusals: Family<Way>,
    pub(crate) gaps: Counter,
    pub(crate) gap_bytes: Counter,
    pub(crate) pushed_files: Counter,
    pub(crate) push_failures: Counter,
    pub(crate) pushed_bytes: Counter,
    /// Of the answers to pulls, as sent.
    pub(crate) pulled_bytes: Counter,
}

impl Metrics {
    pub(crate) fn request(&self, request: &Request) {
        self.requests.add(labels::Asked::of(request), 1);
    }

    /// An `error` was answered.
    pub(crate) fn error(&self, code: ErrorCode) {
        self.errors.add(code, 1);
    }

    /// A `spawn` was answered after this time.
    pub(crate) fn spawned(&self, process_type: ProcessType, took: Duration) {
        self.spawn_time[process_type as usize].observe(took);
    }

    /// A `spawn` was answered by an error.
    pub(crate) fn not_spawned(&self, code: ErrorCode) {
        self.spawn_failures.add(code, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for micros in [0, 1_000, 1_001, 10_000_000, 10_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let counts: Vec<u64> = histogram.buckets.iter().map(Counter::get).collect();
        assert_eq!(counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(histogram.micros.get(), 20_002_002);
    }

    #[test]
    fn process_types_index_their_histograms() {
        for (index, process_type) in ProcessType::ALL.into_iter().enumerate() {
            assert_eq!(process_type as usize, index);
        }
    }
}
