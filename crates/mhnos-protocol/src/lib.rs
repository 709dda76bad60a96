//! The wire contract, version 1.1, without any I/O: what a client may ask, what the service answers, and
//! how each of them looks as JSON text or as a binary frame.
//!
//! Everything a client sends is untrusted. [`parse_request`] therefore reads a message in one strict pass:
//! it either yields a typed [`Request`] in which every value has the right type and range, or a
//! [`Malformed`] that names the field, what was given and what is accepted. Nothing is coerced silently
//! and nothing recurses without a bound. What a request *means* (does the process exist, may the path be
//! used) is left to the server.
//!
//! Output, the bulk of the traffic, does not pass through serde: see [`output`].

pub mod binary;
pub mod doctor;
mod error;
mod event;
mod fields;
mod files;
mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod limits;
mod numbers;
pub mod output;
mod parse;
mod pull;
mod reply;
mod request;
mod scan;
mod server_message;
mod signal;
mod spawn;
mod spawn_parse;
mod status;
mod utf8;

pub use error::{ErrorCode, Malformed};
pub use event::{Connected, Egress, Event, Exit, Gap, Port, PortState, Reason, Size, Usage};
pub use files::{BadEntry, Content, FileEntry};
pub use parse::{Parsed, parse_request, parse_request_bytes};
pub use pull::{PULL_BYTES_PER_BYTE, PullWriter};
pub use reply::{
    Attached, Authenticated, ErrorReply, ExitInfo, Killed, Lingerer, OfPid, OpenPort, PortList, ProcessInfo,
    ProcessList, ProcessStatus, PushError, PushResults, Reply, Spawned, Stats, Success, TokenScope,
    WindowSize,
};
pub use request::{Attach, Encoding, Events, Kill, PresentedToken, Request, Resize, Scope, Write};
pub use server_message::{NotAServerMessage, Output, ServerMessage, Unread, parse_server_message};
pub use signal::Signal;
pub use spawn::{IsolationMode, LimitsRequest, ProcessType, Pty, Spawn, SpawnOptions, StdinMode};
pub use status::{Config, DoorLimits, Isolation, Status, ToolStatus, WireLimits};
pub use utf8::incomplete_suffix;

/// Our own number for a process: a JSON number from 1000 up, never reused while the service lives.
pub type Pid = u32;

/// What `connected` announces. A minor version adds fields and messages and changes none.
pub const PROTOCOL_VERSION: &str = "1.1.0";

/// WebSocket subprotocol of a client that knows 1.1.
pub const SUBPROTOCOL: &str = "mhnos.v1";

/// WebSocket subprotocol of a client that wants output as binary frames (see [`binary`]).
pub const SUBPROTOCOL_BINARY: &str = "mhnos.v1.binary";

/// Prefix of the subprotocol by which a browser presents a token: `mhnos.token.<token>`.
pub const SUBPROTOCOL_TOKEN_PREFIX: &str = "mhnos.token.";

/// Which of a process's output streams. A PTY has [`Stream::Stdout`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

impl Stream {
    /// The `type` of its frames.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}
