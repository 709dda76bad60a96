//! Every bound and time-out of the client.

use std::time::Duration;

/// From the first packet to the server's `connected`.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer may take unless [`Options`](crate::Options) say otherwise: longer than the service's
/// own bound on any answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);

/// How long the server may take to answer a close frame.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Messages that wait to be sent; a sender beyond them waits.
pub const OUTGOING_MESSAGES: usize = 64;

/// Events of one process that wait to be taken; beyond them the connection is not read on. Frames hold at
/// most 64 KiB of output each, so this is a few megabytes.
pub const EVENTS_PER_PROCESS: usize = 64;

/// Events that a [`Process`](crate::Process) sets aside while it waits for an answer, in bytes of output.
/// The answer to a `kill` comes after all that the process wrote before.
pub const HELD_BYTES: usize = 64 * 1024 * 1024;

/// The most output that [`Process::collect`](crate::Process::collect) gathers.
pub const COLLECTED_BYTES: usize = 1024 * 1024 * 1024;

/// The largest message the server may send: the answer to a pull of a large workspace.
pub const MAX_INCOMING_BYTES: usize = 1024 * 1024 * 1024;

/// `error` messages without an id that are kept for [`Client::take_stray_errors`](crate::Client).
pub const STRAY_ERRORS: usize = 64;

/// The most of a refusal's body that an error repeats.
pub const REFUSAL_BODY_BYTES: usize = 4 * 1024;
