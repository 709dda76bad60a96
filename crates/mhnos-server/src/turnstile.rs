//! Who reads next of a large message. Each connection with one would otherwise be ready to read all the time, and whoever
//! sends a short request would wait for the reads of all of them. So few read at once, each a little; the rest queue, and
//! what they are sent waits in the kernel, which slows their senders down.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits;

/// How many may read at once: one thread at least is left to everybody else.
#[derive(Clone, Debug)]
pub(crate) struct Turnstile(Arc<Semaphore>);

impl Turnstile {
    pub(crate) fn new(threads: usize) -> Self {
        Self(Arc::new(Semaphore::new(threads.saturating_sub(1).max(1))))
    }
}

/// One connection's turn. Whoever has or awaits one must go on asking for it, or let go of it: others wait behind.
#[derive(Default)]
pub(crate) enum Turn {
    #[default]
    None,
    /// In the queue.
    Awaited(Pin<Box<dyn Future<Output = OwnedSemaphorePermit> + Send>>),
    /// For so many bytes more.
    Held { left: usize, _place: OwnedSemaphorePermit },
}

impl Turn {
    pub(crate) fn poll(&mut self, turnstile: &Turnstile, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self {
                Self::Held { .. } => return Poll::Ready(()),
                Self::Awaited(place) => *self = Self::held(ready!(place.as_mut().poll(cx))),
                Self::None => {
                    let places = Arc::clone(&turnstile.0);
                    *self = match Arc::clone(&places).try_acquire_owned() {
                        Ok(place) => Self::held(place),
                        Err(_) => Self::Awaited(Box::pin(async move {
                            places.acquire_owned().await.expect("nobody closes it")
                        })),
                    };
                }
            }
        }
    }

    fn held(place: OwnedSemaphorePermit) -> Self {
        Self::Held { left: limits::LARGE_TURN, _place: place }
    }

    /// So many bytes were read.
    pub(crate) fn used(&mut self, bytes: usize) {
        if let Self::Held { left, .. } = self {
            *left = left.saturating_sub(bytes);
            if *left == 0 {
                *self = Self::None;
            }
        }
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Awaited(_) => "Awaited",
            Self::Held { .. } => "Held",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn ready(turn: &mut Turn, turnstile: &Turnstile) -> bool {
        turn.poll(turnstile, &mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn turns_go_round_and_one_that_is_let_go_is_the_next_ones() {
        let turnstile = Turnstile::new(2);
        let [mut first, mut second, mut third] = [const { Turn::None }; 3];
        assert!(ready(&mut first, &turnstile));
        assert!(!ready(&mut second, &turnstile) && !ready(&mut third, &turnstile));
        first.used(limits::LARGE_TURN - 1);
        assert!(ready(&mut first, &turnstile) && !ready(&mut second, &turnstile));
        first.used(1);
        assert!(!ready(&mut first, &turnstile), "the others come first");
        assert!(!ready(&mut third, &turnstile) && ready(&mut second, &turnstile));
        second = Turn::None;
        assert!(!ready(&mut second, &turnstile) && ready(&mut third, &turnstile));
        // Somebody who waits and leaves is in nobody's way.
        first = Turn::None;
        third = Turn::None;
        assert!(
            ready(&mut second, &turnstile)
                && !ready(&mut first, &turnstile)
                && !ready(&mut third, &turnstile)
        );
    }

    #[test]
    fn with_one_thread_there_is_one_place() {
        for threads in 0..3 {
            let turnstile = Turnstile::new(threads);
            let [mut first, mut second] = [const { Turn::None }; 2];
            assert!(ready(&mut first, &turnstile) && !ready(&mut second, &turnstile));
        }
    }
}
