//! The workspace's quota: its files are counted again and again, and what makes it grow beyond the quota is stopped.
//!
//! Who writes cannot be told, so all programs are ended. Not because there is too much, but because it grows: whoever
//! cleans up is left alone.

use std::{io, thread, time::Instant};

use mhnos_process::Processes;
use mhnos_workspace::{Usage, Workspace};
use tokio::sync::oneshot;
use tracing::warn;

use crate::limits::{QUOTA_FAILURES, QUOTA_GROWTH, QUOTA_INTERVAL, QUOTA_LONGEST_PAUSE, QUOTA_PAUSE_FACTOR};

/// Watches for ever, if there is a quota. What is tolerated stays so for the next bridge: it is in the service's note.
///
/// # Cancel safety
/// A count that is under way ends by itself.
pub(crate) async fn watch(workspace: &Workspace, processes: &Processes) {
    let count = || {
        let counting = workspace.clone();
        async move {
            let (tell, told) = oneshot::channel();
            // Nothing waits for such a thread when this bridge ends.
            thread::Builder::new().name("quota".to_owned()).spawn(move || tell.send(counting.measure()))?;
            told.await.map_err(io::Error::other)?.transpose()
        }
    };
    let mut growth = Growth::noted(&processes.service_note());
    let mut failures = 0;
    loop {
        let begin = Instant::now();
        match confirmed(&growth, count).await {
            Ok(None) => return std::future::pending().await,
            Ok(Some(usage)) => {
                failures = 0;
                let before = growth.tolerated;
                if growth.look(usage) {
                    let ended = processes.stop_over_quota();
                    let Usage { used, limit } = usage;
                    warn!(
                        used,
                        quota = limit,
                        ended,
                        "the workspace grows beyond its quota; ending all programs"
                    );
                }
                if growth.tolerated != before {
                    // Without a keeper there is no next bridge.
                    let _ = processes.set_service_note(growth.note()).await;
                }
            }
            Err(error) if failures + 1 < QUOTA_FAILURES => {
                failures += 1;
                warn!(%error, "the workspace cannot be read to keep its quota; trying again");
            }
            // A program must not have more for that nobody can look.
            Err(error) => {
                let ended = processes.stop_over_quota();
                warn!(%error, ended, "the workspace cannot be read, so its quota cannot be kept; ending all programs");
            }
        }
        let pause = begin.elapsed().saturating_mul(QUOTA_PAUSE_FACTOR);
        tokio::time::sleep(pause.clamp(QUOTA_INTERVAL, QUOTA_LONGEST_PAUSE)).await;
    }
}

/// Counts, and once more if that is too much: what is moved during a count may be counted twice.
async fn confirmed<F: Future<Output = io::Result<Option<Usage>>>>(
    growth: &Growth,
    count: impl Fn() -> F,
) -> io::Result<Option<Usage>> {
    match count().await {
        Ok(Some(usage)) if growth.is_over(usage) => count().await,
        counted => counted,
    }
}

/// Whether a workspace grows beyond what is tolerated: the quota, or as much as there was when it was last looked at.
#[derive(Default)]
struct Growth {
    /// Nothing before the first look.
    tolerated: Option<u64>,
    last: u64,
}

impl Growth {
    /// As an earlier bridge has left it, if one has.
    fn noted(note: &[u8]) -> Self {
        let tolerated = note.try_into().ok().map(u64::from_le_bytes);
        Self { tolerated, last: tolerated.unwrap_or(0) }
    }

    fn note(&self) -> Vec<u8> {
        self.tolerated.map(u64::to_le_bytes).map(Vec::from).unwrap_or_default()
    }

    /// The most there may be. Less is tolerated when two counts say that there is less: one may have missed what was moved.
    fn most(&self, usage: Usage) -> u64 {
        let seen = usage.used.max(self.last);
        self.tolerated.unwrap_or(usage.used).min(seen).max(usage.limit)
    }

    fn is_over(&self, usage: Usage) -> bool {
        usage.used > self.most(usage).saturating_add(QUOTA_GROWTH)
    }

    /// Whether it is too much; if so, that much is tolerated from now on.
    fn look(&mut self, usage: Usage) -> bool {
        let over = self.is_over(usage);
        self.tolerated = Some(if over { usage.used } else { self.most(usage) });
        self.last = usage.used;
        over
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const LIMIT: u64 = 100 * QUOTA_GROWTH;

    fn usage(used: u64) -> Usage {
        Usage { used: used * QUOTA_GROWTH, limit: LIMIT }
    }

    #[test]
    fn growth_beyond_the_quota_stops_programs_and_cleaning_up_does_not() {
        let mut growth = Growth::default();
        let mut check = |used: u64, expected: bool| {
            assert_eq!(growth.look(usage(used)), expected, "{used}");
        };
        check(50, false);
        check(101, false);
        check(102, true);
        // What is there is tolerated, and more of it is not.
        check(102, false);
        check(110, true);
        check(105, false);
        check(105, false);
        check(106, false);
        check(107, true);
        check(90, false);
        check(90, false);
        check(102, true);
    }

    #[test]
    fn a_count_that_misses_something_makes_no_growth_of_what_is_there() {
        let mut growth = Growth::default();
        for used in [150, 0, 150, 60, 151, 0] {
            assert!(!growth.look(usage(used)), "{used}");
        }
        assert!(growth.look(usage(153)), "the control");
    }

    #[test]
    fn the_next_bridge_tolerates_what_this_one_does() {
        let mut growth = Growth::default();
        assert!(!growth.look(usage(150)));
        let mut next = Growth::noted(&growth.note());
        assert!(!next.look(usage(0)), "one count");
        assert!(!next.look(usage(150)));
        assert!(next.look(usage(152)));
        let mut first = Growth::noted(&Growth::default().note());
        assert!(!first.look(usage(152)), "what is there at the start");
    }

    #[tokio::test]
    async fn too_much_is_counted_again_before_anybody_is_ended() {
        let growth = Growth { tolerated: Some(LIMIT), last: LIMIT };
        // First count, second, and what is taken for true.
        for (first, second, taken) in [(150, 80, 80), (150, 150, 150), (80, 150, 80)] {
            let counts = Cell::new(vec![second, first]);
            let count = || {
                let mut left = counts.take();
                let next = left.pop().map(usage);
                counts.set(left);
                std::future::ready(Ok(next))
            };
            let counted = confirmed(&growth, count).await.expect("counted");
            assert_eq!(counted, Some(usage(taken)));
        }
    }

    #[test]
    fn what_is_there_at_the_start_is_tolerated() {
        let mut growth = Growth::default();
        assert!(!growth.look(usage(110)));
        assert!(growth.look(usage(112)));
    }
}
