//! How many may be here: WebSockets and clients of previews, in all and of one address; connections to what processes
//! serve, in all and of one process; and connections whose first request is not done yet.
//!
//! The last are not counted among the first, and when there are too many of them the oldest is cut: a real client
//! is through in milliseconds, so whoever opens thousands and says nothing is in the way of its own kind only.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::limits;

/// Places, so many in all and so many for each of those who take them: whoever takes too many keeps out himself first.
#[derive(Debug)]
pub(crate) struct Places<K> {
    taken: Mutex<Taken<K>>,
    all: usize,
    of_one: usize,
}

#[derive(Debug)]
struct Taken<K> {
    all: usize,
    by: HashMap<K, usize>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    /// All are taken.
    #[error("Too many connections to this service are open (MHNOS_MAX_CONNECTIONS).")]
    All,
    /// Those of one.
    #[error("Too many connections of your address are open (MHNOS_MAX_CONNECTIONS_PER_ADDRESS).")]
    Own,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Place<K: Copy + Eq + Hash> {
    places: Arc<Places<K>>,
    whose: K,
}

impl<K: Copy + Eq + Hash> Places<K> {
    pub(crate) fn new(all: usize, of_one: usize) -> Arc<Self> {
        Arc::new(Self { taken: Mutex::new(Taken { all: 0, by: HashMap::new() }), all, of_one })
    }

    pub(crate) fn take(self: &Arc<Self>, whose: K) -> Result<Place<K>, Full> {
        let mut taken = self.lock();
        let of_one = taken.by.get(&whose).copied().unwrap_or(0);
        if taken.all >= self.all {
            return Err(Full::All);
        }
        if of_one >= self.of_one {
            return Err(Full::Own);
        }
        taken.all += 1;
        taken.by.insert(whose, of_one + 1);
        Ok(Place { places: Arc::clone(self), whose })
    }

    fn lock(&self) -> MutexGuard<'_, Taken<K>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy + Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        if let Some(of_one) = taken.by.get_mut(&self.whose) {
            *of_one -= 1;
            if *of_one == 0 {
                taken.by.remove(&self.whose);
            }
        }
    }
}

/// Connections whose first request is not done yet, by age.
#[derive(Debug, Default)]
pub(crate) struct Hall(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    by_age: BTreeMap<u64, Arc<Notify>>,
}

/// Being in the hall.
#[derive(Debug)]
pub(crate) struct Visit {
    hall: Arc<Hall>,
    number: u64,
    cut: Arc<Notify>,
}

impl Hall {
    /// Comes in; the oldest goes if there are too many.
    pub(crate) fn enter(self: &Arc<Self>) -> Visit {
        let cut = Arc::new(Notify::new());
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.by_age.len() >= limits::MAX_HANDSHAKES
            && let Some((_, oldest)) = waiting.by_age.pop_first()
        {
            oldest.notify_one();
        }
        waiting.next += 1;
        let number = waiting.next;
        waiting.by_age.insert(number, Arc::clone(&cut));
        Visit { hall: Arc::clone(self), number, cut }
    }
}

impl Visit {
    /// Returns when somebody else needs the room.
    pub(crate) async fn cut(&self) {
        self.cut.notified().await;
    }

    /// Is in nobody's way any more.
    pub(crate) fn leave(&self) {
        let mut waiting = self.hall.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.by_age.remove(&self.number);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn places_are_counted_in_all_and_for_each_and_come_back() {
        let places = Places::new(3, 2);
        let one = [places.take(2), places.take(2)].map(Result::unwrap);
        assert_eq!(places.take(2).unwrap_err(), Full::Own);
        let other = places.take(3).expect("a place");
        assert_eq!(places.take(3).unwrap_err(), Full::All);
        drop(one);
        assert!(places.take(2).is_ok());
        drop(other);
        let taken = places.lock();
        assert_eq!((taken.all, taken.by.len()), (0, 0));
    }

    #[test]
    fn the_oldest_goes_when_the_hall_is_full() {
        let hall = Arc::new(Hall::default());
        let mut visits: Vec<Visit> = (0..limits::MAX_HANDSHAKES).map(|_| hall.enter()).collect();
        assert!(visits[0].cut().now_or_never().is_none());
        visits.push(hall.enter());
        assert!(visits[0].cut().now_or_never().is_some() && visits[1].cut().now_or_never().is_none());
        visits.clear();
        assert!(hall.0.lock().expect("not poisoned").by_age.is_empty());
    }
}
