//! Whether a client is still there. It is pinged in rounds, and whatever comes from it is a sign of life: a pong may have to
//! wait until a large message is through. While the service itself does not read, nothing can come.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Signs of life of one connection.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// Rounds since the last.
    rounds: AtomicU32,
    /// The connection is not being read.
    deaf: AtomicBool,
}

impl Pulse {
    /// There was one.
    pub(crate) fn heard(&self) {
        self.rounds.store(0, Ordering::Relaxed);
    }

    /// A round is over. How many were without any, those before this one.
    pub(crate) fn round(&self) -> u32 {
        if self.deaf.load(Ordering::Relaxed) { 0 } else { self.rounds.fetch_add(1, Ordering::Relaxed) }
    }

    /// The connection is not read until this is dropped; from then on as many rounds may pass as ever.
    pub(crate) fn deaf(&self) -> Deaf<'_> {
        self.deaf.store(true, Ordering::Relaxed);
        Deaf(self)
    }
}

/// See [`Pulse::deaf`].
#[derive(Debug)]
pub(crate) struct Deaf<'p>(&'p Pulse);

impl Drop for Deaf<'_> {
    fn drop(&mut self) {
        self.0.heard();
        self.0.deaf.store(false, Ordering::Relaxed);
    }
}
