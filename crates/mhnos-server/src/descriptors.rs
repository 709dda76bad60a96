//! How many files the service may need to have open, and what of them is left to connections of programs: whatever
//! those do, clients find room; and whatever clients do, there is room for what they ask of the keeper: a descriptor that
//! comes with its word and finds none is lost.

use std::fs;

use rustix::process::{Resource, getrlimit};

use crate::{
    config::Config,
    limits::{MAX_HANDSHAKES, MAX_PREVIEWS_CONNECTIONS, OWN_DESCRIPTORS, PROCESS_DESCRIPTORS},
};

/// What serving all that the settings allow takes, at the same time.
pub fn needed(config: &Config) -> u64 {
    // A handshake has two (`http::Arrival`).
    let clients = config.max_connections.saturating_add(2 * MAX_HANDSHAKES + MAX_PREVIEWS_CONNECTIONS);
    let processes = config.max_processes.saturating_mul(PROCESS_DESCRIPTORS);
    clients.saturating_add(processes).saturating_add(mhnos_network::MAX_DESCRIPTORS + OWN_DESCRIPTORS) as u64
}

/// How many files this process may have open before it takes no more connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptors {
    /// Not looked at where all that the settings allow fits.
    most: Option<u64>,
}

impl Descriptors {
    pub(crate) fn of(config: &Config) -> Self {
        let limit = given();
        let processes = config.max_processes.saturating_mul(PROCESS_DESCRIPTORS);
        let kept = (processes.saturating_add(OWN_DESCRIPTORS) as u64).min(limit / 4);
        Self { most: (limit < needed(config)).then(|| limit - kept) }
    }

    /// Whether there are some for another connection.
    pub(crate) fn are_left(self) -> bool {
        self.most.is_none_or(|most| open().is_none_or(|open| open < most))
    }
}

/// Those of this process; `None` if that cannot be told.
fn open() -> Option<u64> {
    const OWN: &str = "/proc/self/fd";
    match fs::metadata(OWN).ok()?.len() {
        // Before Linux 6.2.
        0 => Some(fs::read_dir(OWN).ok()?.count() as u64),
        open => Some(open),
    }
}

fn given() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// What programs' connections to the outside may take of this process's: half.
pub(crate) fn for_programs() -> usize {
    usize::try_from(given() / 2).unwrap_or(usize::MAX)
}
