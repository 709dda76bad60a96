//! The workspace's quota: its files are counted again and again, and what makes it grow beyond the quota is stopped.
//!
//! Who writes cannot be told, so all programs are ended. Not because there is too much, but because it grows: whoever
//! cleans up is left alone.

use std::time::Instant;

use mhnos_process::Processes;
use mhnos_workspace::{Usage, Workspace};
use tracing::warn;

use crate::limits::{QUOTA_GROWTH, QUOTA_INTERVAL, QUOTA_PAUSE_FACTOR};

/// Watches for ever; returns at once if there is no quota.
///
/// # Cancel safety
/// A count that is under way ends by itself.
pub(crate) async fn watch(workspace: &Workspace, processes: &Processes) {
    let mut tolerated = None;
    loop {
        let begin = Instant::now();
        let counting = workspace.clone();
        let counted = tokio::task::spawn_blocking(move || counting.measure()).await;
        match counted {
            Ok(Some(Ok(usage))) if over(usage, &mut tolerated) => {
                let ended = processes.stop_over_quota();
                warn!(
                    used = usage.used,
                    quota = usage.limit,
                    ended,
                    "the workspace grows beyond its quota; ending all programs"
                );
            }
            Ok(Some(Ok(_))) => {}
            // A program must not have more for that nobody can look.
            Ok(Some(Err(error))) => {
                let ended = processes.stop_over_quota();
                warn!(%error, ended, "the workspace cannot be read, so its quota cannot be kept; ending all programs");
            }
            Ok(None) | Err(_) => return,
        }
        tokio::time::sleep(QUOTA_INTERVAL.max(begin.elapsed() * QUOTA_PAUSE_FACTOR)).await;
    }
}

/// Whether it has grown beyond what is tolerated: the quota, or as much as there was when it was last looked at.
fn over(usage: Usage, tolerated: &mut Option<u64>) -> bool {
    let most = tolerated.unwrap_or(usage.used).min(usage.used.max(usage.limit)).max(usage.limit);
    let over = usage.used > most.saturating_add(QUOTA_GROWTH);
    *tolerated = Some(if over { usage.used } else { most });
    over
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_beyond_the_quota_stops_programs_and_cleaning_up_does_not() {
        let limit = 100 * QUOTA_GROWTH;
        let mut tolerated = None;
        let mut check = |used: u64, expected: bool| {
            assert_eq!(over(Usage { used: used * QUOTA_GROWTH, limit }, &mut tolerated), expected, "{used}");
        };
        check(50, false);
        check(101, false);
        check(102, true);
        // What is there is tolerated, and more of it is not.
        check(102, false);
        check(110, true);
        check(105, false);
        check(106, false);
        check(107, true);
        check(90, false);
        check(102, true);
    }

    #[test]
    fn what_is_there_at_the_start_is_tolerated() {
        let usage = |used| Usage { used: used * QUOTA_GROWTH, limit: QUOTA_GROWTH };
        let mut tolerated = None;
        assert!(!over(usage(10), &mut tolerated));
        assert!(over(usage(12), &mut tolerated));
    }
}
