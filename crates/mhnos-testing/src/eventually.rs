//! Polling with a deadline, for what the other side does not announce.
//!
//! The only sleep in the tests: it bounds how often a condition is looked at, never how long a test hopes something takes.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(5);

/// Calls `check` until it returns something, and returns that.
///
/// Panics with the caller's place after `deadline`; pick it generously, it is only reached on failure.
#[track_caller]
pub fn eventually<T>(deadline: Duration, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
        std::thread::sleep(INTERVAL);
    }
}

/// The same on a tokio runtime, whose other tasks go on meanwhile.
pub async fn eventually_async<T>(
    deadline: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
        tokio::time::sleep(INTERVAL).await;
    }
}
