//! How many files the service may need to have open, and what of them is left to connections of programs: whatever
//! those do, clients find room.

use rustix::process::{Resource, getrlimit};

use crate::{
    config::Config,
    limits::{MAX_HANDSHAKES, MAX_PREVIEWS_CONNECTIONS, OWN_DESCRIPTORS, PROCESS_DESCRIPTORS},
};

/// What serving all that the settings allow takes, at the same time.
pub fn needed(config: &Config) -> u64 {
    let clients = config.max_connections.saturating_add(MAX_HANDSHAKES + MAX_PREVIEWS_CONNECTIONS);
    let processes = config.max_processes.saturating_mul(PROCESS_DESCRIPTORS);
    clients.saturating_add(processes).saturating_add(mhnos_network::MAX_DESCRIPTORS + OWN_DESCRIPTORS) as u64
}

/// What programs' connections to the outside may take of this process's: half.
pub(crate) fn for_programs() -> usize {
    usize::try_from(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 2).unwrap_or(usize::MAX)
}
