//! How many connections each process's previews have, and all of them: whoever opens too many keeps out only
//! himself, never those who want to reach the service.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use mhnos_process::Pid;

use crate::limits::{MAX_PREVIEW_CONNECTIONS, MAX_PREVIEWS_CONNECTIONS};

#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_pid: HashMap<Pid, usize>,
}

/// A place taken, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    pub(super) pid: Pid,
}

impl Places {
    pub(super) fn take(&self, pid: Pid) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.by_pid.get(&pid).copied().unwrap_or(0);
        if taken.all >= MAX_PREVIEWS_CONNECTIONS || own >= MAX_PREVIEW_CONNECTIONS {
            return None;
        }
        taken.all += 1;
        taken.by_pid.insert(pid, own + 1);
        Some(Place { places: self.clone(), pid })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(own) = taken.by_pid.get_mut(&self.pid) {
            *own -= 1;
            if *own == 0 {
                taken.by_pid.remove(&self.pid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_cannot_take_the_places_of_another() {
        let places = Places::default();
        let own: Vec<_> = (0..MAX_PREVIEW_CONNECTIONS).map(|_| places.take(1).expect("room")).collect();
        assert!(places.take(1).is_none());
        assert!(places.take(2).is_some());
        drop(own);
        assert!(places.take(1).is_some());
        assert!(places.0.lock().expect("whole").by_pid.is_empty());
    }
}
