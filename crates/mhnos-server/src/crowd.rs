//! How much of messages is in memory at once, over all connections. Each may send 100 MiB, but not all of them at the
//! same time: when the budget is used up, the message that has been arriving slowest is given up, so that a crowd of
//! slow senders stands in nobody's way.
//!
//! A message holds its bytes from when they come until its request has been carried out: input until its process has
//! taken it, or it is refused. Small ones ([`limits::FREE_MESSAGE`]) are not counted.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    thread::available_parallelism,
};

use mhnos_sandbox::sys::give_back_free_memory;
use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{Instant, timeout},
};

use crate::{
    limits,
    turnstile::{Turn, Turnstile},
};

/// The budget of all connections.
#[derive(Debug)]
pub(crate) struct Crowd {
    held: Mutex<Held>,
    budget: usize,
    turnstile: Turnstile,
    this: Weak<Self>,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    next: u64,
    messages: HashMap<u64, Message>,
    /// A large one has gone.
    freed: Arc<Notify>,
}

#[derive(Debug)]
struct Message {
    bytes: usize,
    since: Instant,
    fate: Weak<Fate>,
}

/// What becomes of the messages of a connection, or of one that has been kept.
#[derive(Debug, Default)]
struct Fate {
    /// The message is whole and being dealt with: giving it up would win nothing.
    busy: AtomicBool,
    /// What still comes of it is thrown away, and holds nothing. Set while the budget is locked.
    lost: AtomicBool,
    given_up: Notify,
}

impl Message {
    /// Bytes a second, so that one that has just begun does not count as slow.
    fn pace(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.since).as_secs_f64();
        (self.bytes + limits::FREE_MESSAGE) as f64 / (age + 0.1)
    }
}

/// One connection's part.
#[derive(Debug)]
pub(crate) struct Share {
    crowd: Arc<Crowd>,
    number: u64,
    /// Of messages that have not been dealt with.
    bytes: AtomicUsize,
    /// Of these, what had come when the message that is being dealt with was whole.
    whole: AtomicUsize,
    fate: Arc<Fate>,
    /// To read more of a large message.
    turn: Mutex<Turn>,
}

/// What a request keeps of its message while others of its connection are dealt with.
#[derive(Debug)]
pub(crate) struct Kept {
    crowd: Arc<Crowd>,
    number: u64,
    fate: Arc<Fate>,
}

impl Crowd {
    pub(crate) fn new(budget: usize) -> Arc<Self> {
        Self::with(budget, Turnstile::new(available_parallelism().map_or(1, usize::from)))
    }

    pub(crate) fn with(budget: usize, turnstile: Turnstile) -> Arc<Self> {
        Arc::new_cyclic(|this| Self { held: Mutex::default(), budget, turnstile, this: this.clone() })
    }

    /// The part of a new connection.
    pub(crate) fn share(&self) -> Arc<Share> {
        let crowd = self.this.upgrade().expect("called through an Arc");
        let number = self.lock().number();
        let (bytes, whole) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Share { crowd, number, bytes, whole, fate: Arc::default(), turn: Mutex::default() })
    }

    /// Gives what large messages took back to the kernel when none has gone for a while. The allocator keeps it for the next
    /// ones, which take two thirds of the time then, but it keeps it for ever.
    pub(crate) async fn give_back(&self) -> Infallible {
        let freed = Arc::clone(&self.lock().freed);
        loop {
            freed.notified().await;
            while timeout(limits::KEEP_FREE_MEMORY, freed.notified()).await.is_ok() {}
            let _ = spawn_blocking(give_back_free_memory).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, share: &Arc<Share>, bytes: usize) {
        let now = Instant::now();
        let mut held = self.lock();
        if share.fate.lost.load(Ordering::Relaxed) {
            return;
        }
        let fresh = || Message { bytes: 0, since: now, fate: Arc::downgrade(&share.fate) };
        let message = held.messages.entry(share.number).or_insert_with(fresh);
        let more = bytes - message.bytes;
        message.bytes = bytes;
        held.total += more;
        while held.total > self.budget {
            let waits = |message: &&Message| {
                message.fate.upgrade().is_some_and(|fate| !fate.busy.load(Ordering::Relaxed))
            };
            let candidates = held.messages.iter().filter(|(_, message)| waits(message));
            let slowest = candidates.min_by(|(_, a), (_, b)| a.pace(now).total_cmp(&b.pace(now)));
            let Some((number, fate)) = slowest.map(|(number, message)| (*number, message.fate.clone()))
            else {
                return;
            };
            held.forget(number);
            if let Some(fate) = fate.upgrade() {
                fate.lost.store(true, Ordering::Relaxed);
                fate.given_up.notify_one();
            }
        }
    }
}

impl Held {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn insert(&mut self, number: u64, message: Message) {
        self.total += message.bytes;
        self.messages.insert(number, message);
    }

    fn forget(&mut self, number: u64) -> Option<Message> {
        let message = self.messages.remove(&number)?;
        self.total -= message.bytes;
        if message.bytes >= limits::LARGE_MESSAGE {
            self.freed.notify_one();
        }
        Some(message)
    }
}

impl Share {
    /// Waits, amid a large message, until this connection may read.
    pub(crate) fn poll_turn(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.bytes.load(Ordering::Relaxed) <= limits::FREE_MESSAGE {
            return Poll::Ready(());
        }
        self.turn().poll(&self.crowd.turnstile, cx)
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is read for now: it is others' turn.
    pub(crate) fn rest(&self) {
        *self.turn() = Turn::None;
    }

    /// Bytes were read, of whatever.
    pub(crate) fn has_read(&self, bytes: usize) {
        self.turn().used(bytes);
    }

    /// Bytes of a message have come.
    pub(crate) fn received(self: &Arc<Self>, bytes: usize) {
        let now = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if now > limits::FREE_MESSAGE {
            self.crowd.hold(self, now);
        }
    }

    /// A message is whole, and is being dealt with.
    pub(crate) fn begin(&self) {
        self.whole.store(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        self.fate.busy.store(true, Ordering::Relaxed);
    }

    /// It has been dealt with.
    pub(crate) fn end(&self) {
        self.fate.busy.store(false, Ordering::Relaxed);
        if self.bytes.load(Ordering::Relaxed) > limits::FREE_MESSAGE {
            self.release(&mut self.crowd.lock());
        } else {
            self.take_whole();
        }
    }

    /// No longer holds the message that is being dealt with, but what has come after it. Since when that one had been held.
    fn release(&self, held: &mut Held) -> Option<Instant> {
        let left = self.take_whole();
        let message = held.forget(self.number)?;
        if left > limits::FREE_MESSAGE {
            let fate = message.fate.clone();
            held.insert(self.number, Message { bytes: left, since: Instant::now(), fate });
        }
        Some(message.since)
    }

    /// What is left without the message that is being dealt with.
    fn take_whole(&self) -> usize {
        let whole = self.whole.swap(0, Ordering::Relaxed);
        self.bytes.fetch_sub(whole, Ordering::Relaxed) - whole
    }

    /// What still comes is thrown away.
    pub(crate) fn lose(&self) {
        let _held = self.crowd.lock();
        self.fate.lost.store(true, Ordering::Relaxed);
    }

    /// Nothing is held any more.
    pub(crate) fn forget(&self) {
        self.crowd.lock().forget(self.number);
    }

    /// For what keeps this much of the message that is being dealt with for longer than that takes. From now on it
    /// may be given up again: whoever waits for a program that takes a byte at a time stands in nobody's way either.
    pub(crate) fn keep(&self, bytes: usize) -> Option<Kept> {
        if bytes <= limits::FREE_MESSAGE {
            return None;
        }
        let fate = Arc::<Fate>::default();
        let mut held = self.crowd.lock();
        let since = self.release(&mut held).unwrap_or_else(Instant::now);
        let number = held.number();
        held.insert(number, Message { bytes, since, fate: Arc::downgrade(&fate) });
        Some(Kept { crowd: Arc::clone(&self.crowd), number, fate })
    }

    /// Returns when this connection's message is given up.
    pub(crate) async fn given_up(&self) {
        self.fate.given_up.notified().await;
    }
}

impl Kept {
    /// Returns when it is to be given up.
    pub(crate) async fn given_up(&self) {
        self.fate.given_up.notified().await;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.crowd.lock().forget(self.number);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    const MIB: usize = 1 << 20;

    fn is_given_up(share: &Share) -> bool {
        share.given_up().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn the_slowest_message_is_given_up_when_the_budget_is_used_up() {
        let crowd = Crowd::new(10 * MIB);
        let (slow, fast, other) = (crowd.share(), crowd.share(), crowd.share());
        slow.received(4 * MIB);
        tokio::time::advance(Duration::from_secs(5)).await;
        fast.received(4 * MIB);
        other.received(3 * MIB);
        assert!(is_given_up(&slow) && !is_given_up(&fast) && !is_given_up(&other));
        assert_eq!(crowd.lock().total, 7 * MIB);
    }

    /// Its client may go on sending for as long as it likes before it reads the close frame.
    #[tokio::test(start_paused = true)]
    async fn what_still_comes_of_a_message_that_was_given_up_takes_nothing_of_the_budget() {
        let crowd = Crowd::new(10 * MIB);
        let (slow, fast) = (crowd.share(), crowd.share());
        slow.received(6 * MIB);
        tokio::time::advance(Duration::from_secs(5)).await;
        fast.received(5 * MIB);
        assert!(is_given_up(&slow) && !is_given_up(&fast));
        for _ in 0..5 {
            slow.received(20 * MIB);
        }
        fast.received(4 * MIB);
        assert!(!is_given_up(&fast), "it fits");
        assert_eq!(crowd.lock().total, 9 * MIB);
        drop(slow);
        assert_eq!(crowd.lock().total, 9 * MIB);
    }

    /// As when a rule was broken, and the client goes on sending.
    #[tokio::test(start_paused = true)]
    async fn what_is_only_thrown_away_takes_nothing_of_the_budget() {
        let crowd = Crowd::new(10 * MIB);
        let (broken, slow) = (crowd.share(), crowd.share());
        slow.received(4 * MIB);
        broken.received(2 * MIB);
        tokio::time::advance(Duration::from_secs(5)).await;
        broken.lose();
        broken.received(20 * MIB);
        assert!(!is_given_up(&slow));
        assert_eq!(crowd.lock().total, 6 * MIB, "what is in memory counts");
        broken.forget();
        broken.received(20 * MIB);
        assert_eq!(crowd.lock().total, 4 * MIB);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_come_of_the_next_message_is_held_when_one_has_been_dealt_with() {
        let crowd = Crowd::new(10 * MIB);
        let share = crowd.share();
        share.received(4 * MIB);
        share.begin();
        share.received(3 * MIB);
        share.end();
        assert_eq!(crowd.lock().total, 3 * MIB);
        share.begin();
        share.received(2 * MIB);
        let kept = share.keep(MIB);
        assert_eq!(crowd.lock().total, 3 * MIB);
        share.end();
        assert_eq!(crowd.lock().total, 3 * MIB);
        drop(kept);
        share.begin();
        share.end();
        let held = crowd.lock();
        assert_eq!((held.total, held.messages.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_being_dealt_with_is_not_given_up() {
        let crowd = Crowd::new(10 * MIB);
        let (whole, arriving) = (crowd.share(), crowd.share());
        whole.received(9 * MIB);
        whole.begin();
        tokio::time::advance(Duration::from_secs(5)).await;
        arriving.received(2 * MIB);
        assert!(!is_given_up(&whole) && is_given_up(&arriving));
        whole.end();
        assert_eq!(crowd.lock().total, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_request_keeps_counts_until_it_is_dropped_and_is_given_up_when_it_is_the_slowest() {
        let crowd = Crowd::new(10 * MIB);
        let (writing, arriving) = (crowd.share(), crowd.share());
        let mut kept = Vec::new();
        for _ in 0..2 {
            writing.received(4 * MIB);
            writing.begin();
            kept.extend(writing.keep(4 * MIB));
            writing.end();
            tokio::time::advance(Duration::from_secs(5)).await;
        }
        assert_eq!((kept.len(), crowd.lock().total), (2, 8 * MIB));
        arriving.received(4 * MIB);
        assert!(!is_given_up(&arriving) && !is_given_up(&writing));
        let lost = kept.iter().map(|kept| kept.given_up().now_or_never().is_some());
        assert_eq!(lost.collect::<Vec<_>>(), [true, false], "the one that has waited longest");
        kept.clear();
        assert_eq!(crowd.lock().total, 4 * MIB);
    }

    #[tokio::test(start_paused = true)]
    async fn small_messages_are_free_and_a_connection_that_ends_holds_nothing() {
        let crowd = Crowd::new(10 * MIB);
        let share = crowd.share();
        for _ in 0..1000 {
            share.received(limits::FREE_MESSAGE);
            share.begin();
            share.end();
        }
        assert_eq!(crowd.lock().total, 0);
        share.received(5 * MIB);
        assert_eq!(crowd.lock().total, 5 * MIB);
        drop(share);
        let held = crowd.lock();
        assert_eq!((held.total, held.messages.len()), (0, 0));
    }
}
