//! Every bound of the way out, in one place.

use std::time::Duration;

/// Connections of one sandbox that are open or being opened: a build's downloads many times over.
pub const CONNECTIONS: usize = 512;

/// Descriptors of the connections of all sandboxes together: eight sandboxes with all they may have, at two each (the
/// program's end and the outside's). The gateway is given less where the process has few, so that clients find some.
pub const DESCRIPTORS: usize = 2 * 8 * CONNECTIONS;

/// What an accepted connection takes of those at least.
pub const OF_A_CONNECTION: u32 = 2;

/// For a program to say where it wants to go, once it has connected.
pub const ASK_TIME: Duration = Duration::from_secs(30);

/// For a name to be resolved.
pub const RESOLVE_TIME: Duration = Duration::from_secs(10);

/// Names being resolved at once: each takes a thread while the machine's resolver waits for its servers.
pub const RESOLVING: usize = 64;

/// Of those, names of one sandbox: servers that do not answer its questions keep nobody else from asking.
pub const RESOLVING_OF_ONE: usize = 16;

/// For a connection to the outside to stand, over all addresses of a name.
pub const CONNECT_TIME: Duration = Duration::from_secs(20);

/// Until the next address of a name is tried beside the one before (RFC 8305).
pub const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Addresses of one name that are looked at.
pub const ADDRESSES: usize = 16;

/// A connection on which nothing moves in either direction is closed: what is left open by mistake would take a
/// place for good. Long polls and database sessions stay.
pub const IDLE_TIME: Duration = Duration::from_mins(15);

/// Bytes of a proxy request's head.
pub const MAX_HEAD: usize = 64 * 1024;

/// Header lines of a proxy request.
pub const MAX_HEADERS: usize = 128;

/// Bytes moved at a time in each direction of a connection.
pub const PIECE: usize = 64 * 1024;

/// By how much a sandbox may be ahead of its rate: less, and a timer would be set for every piece.
pub const PACE_AHEAD: Duration = Duration::from_millis(20);

/// Characters of a host name (RFC 1035).
pub const MAX_NAME: usize = 253;

/// Bytes of a question about a name: a name of 255, its head, and what resolvers add.
pub const MAX_QUESTION: usize = 1232;

/// Names of one sandbox that have an address of ours: the oldest goes when there are more.
pub const NAMES: usize = 4096;

/// How long programs may remember the address of a name, in seconds. It is good for much longer.
pub const NAME_TTL: u32 = 60;

/// Refusals of the same destination for the same reason within this time are told as one.
pub const BURST: Duration = Duration::from_secs(10);

/// Different refusals of one sandbox that are told at once; beyond, one each [`REFUSAL_INTERVAL`].
pub const REFUSALS_AT_ONCE: u32 = 20;

/// Between two refusals of one sandbox that are told, when there are many.
pub const REFUSAL_INTERVAL: Duration = Duration::from_secs(1);

/// Refusals that wait for a client who asked to be told. One who is slower is told how many it has missed.
pub const REFUSALS_WAITING: usize = 256;

/// Between two attempts to accept when the kernel has no descriptor left.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bounds that tests set to less.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// [`CONNECTIONS`].
    pub connections: usize,
    /// [`ASK_TIME`].
    pub ask: Duration,
    /// [`RESOLVE_TIME`].
    pub resolve: Duration,
    /// [`CONNECT_TIME`].
    pub connect: Duration,
    /// [`IDLE_TIME`].
    pub idle: Duration,
    /// [`NAMES`].
    pub names: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS,
            ask: ASK_TIME,
            resolve: RESOLVE_TIME,
            connect: CONNECT_TIME,
            idle: IDLE_TIME,
            names: NAMES,
        }
    }
}
