//! The two clocks: monotonic milliseconds for deadlines, which hold for the next bridge too (the machine's
//! clock goes on), and milliseconds since the Unix epoch for what is shown.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::{limits::LONGEST_SLEEP, state::Millis};

/// The monotonic clock, as tokio sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base: Instant,
    base_ms: Millis,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let base_ms = now.tv_sec as Millis * 1000 + now.tv_nsec as Millis / 1_000_000;
        Self { base: Instant::now(), base_ms }
    }

    pub(crate) fn now(&self) -> Millis {
        self.base_ms + self.base.elapsed().as_millis() as Millis
    }

    /// When to wake for a deadline: at it, or earlier if it is far away. Never before it by rounding.
    pub(crate) fn wake_at(&self, deadline: Millis) -> Instant {
        let wait = Duration::from_millis(deadline.saturating_sub(self.base_ms));
        let latest = Instant::now() + LONGEST_SLEEP;
        self.base.checked_add(wait).map_or(latest, |at| at.min(latest))
    }
}

/// Milliseconds of a duration of any size.
pub(crate) fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

/// Milliseconds since the Unix epoch.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}
