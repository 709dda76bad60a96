//! How many bytes a second one sandbox moves to and from the outside, all its connections together
//! (`MHNOS_EGRESS_RATE`).
//!
//! Whoever moves bytes goes into debt with them and waits, before the next, until it is paid: so nothing is cut into pieces for it, and a
//! connection that is alone gets the whole rate.

use std::{
    future::Future,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::limits::PACE_AHEAD;

/// The rate of one sandbox.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes a second; 0 is no bound.
    rate: u64,
    /// Until when what has moved is paid for.
    paid_until: Mutex<Instant>,
}

impl Pace {
    pub(crate) fn new(rate: u64) -> Self {
        Self { rate, paid_until: Mutex::new(Instant::now()) }
    }

    /// Bytes have moved.
    pub(crate) fn moved(&self, bytes: usize) {
        if self.rate == 0 || bytes == 0 {
            return;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        let mut paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        // Time in which nothing moved is not saved up.
        *paid_until = (*paid_until).max(Instant::now()) + cost;
    }

    /// When more may move, if not now.
    fn wait(&self) -> Option<Instant> {
        if self.rate == 0 {
            return None;
        }
        let paid_until = *self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        let more = paid_until.checked_sub(PACE_AHEAD)?;
        (more > Instant::now()).then_some(more)
    }
}

/// One connection's wait for its turn.
#[derive(Debug, Default)]
pub(crate) struct Turn(Option<Pin<Box<Sleep>>>);

impl Turn {
    /// Ready when more may move.
    pub(crate) fn poll(&mut self, pace: &Pace, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(sleep) = &mut self.0 {
                if sleep.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                self.0 = None;
            }
            match pace.wait() {
                None => return Poll::Ready(()),
                Some(more) => self.0 = Some(Box::pin(sleep_until(more))),
            }
        }
    }
}
