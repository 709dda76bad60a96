//! How long a connection may stay without a request: briefly at first, longer between the requests of a preview, as
//! long as it takes during one.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};

use crate::limits::{HANDSHAKE_DEADLINE, PREVIEW_IDLE};

/// Until when a connection's next request must have been served.
#[derive(Clone, Debug)]
pub(crate) struct Patience(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    until: Option<Instant>,
    /// Some preview has been asked for.
    used: bool,
}

impl Patience {
    /// For a connection that has just been accepted.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State { until: Some(Instant::now() + HANDSHAKE_DEADLINE), used: false })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a preview has ever been asked for.
    pub(super) fn was_used(&self) -> bool {
        self.lock().used
    }

    /// A preview is asked for: the connection is in use until what is returned is dropped.
    pub(super) fn in_use(&self) -> InUse {
        *self.lock() = State { until: None, used: true };
        InUse(self.clone())
    }

    /// Returns when it is over. Looks at its own pace: nobody who extends it has to tell.
    pub(crate) async fn over(&self) {
        loop {
            let until = self.lock().until;
            match until {
                Some(until) if until <= Instant::now() => return,
                Some(until) => sleep_until(until).await,
                None => sleep(Duration::min(HANDSHAKE_DEADLINE, PREVIEW_IDLE)).await,
            }
        }
    }
}

/// A request is being served.
#[derive(Debug)]
pub(crate) struct InUse(Patience);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.lock().until = Some(Instant::now() + PREVIEW_IDLE);
    }
}
