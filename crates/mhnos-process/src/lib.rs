//! The bridge's side of every user process: its output log, its viewers, its input, its end.
//!
//! The keeper starts programs and holds their descriptors; this crate owns the other end of the keeper's
//! channel and runs one task for each process. That task alone reads the program's output (into a log that
//! outlives the bridge, see `log`), drives its state machine (`state`, pure), and sets its exit record,
//! which happens after the last byte of output and never before. Everything a new bridge needs to go on is
//! in the log itself and in a note that the keeper holds, so a bridge may be killed at any instant.
//!
//! Nothing here knows JSON, WebSocket or connections: the server attaches [`Viewer`]s and is woken by the
//! `Notify` it gave.

mod clock;
mod dial;
mod exit;
mod input;
mod keeper_link;
pub mod limits;
mod log;
mod network;
mod note;
mod process;
mod reader;
mod registry;
mod request;
mod signal;
mod state;
mod task;
mod threads;
mod viewer;
mod watched;

pub use dial::DialError;
pub use exit::{ExitRecord, Reason, State, Usage};
pub use log::Stream;
pub use mhnos_keeper::channel::{
    ExitStatus, FIRST_PID, Failure, Isolation, Member, Pid, Port, Scope, Stage, Welcome,
};
pub use network::{Network, Networks};
pub use process::{Gone, Process, WriteError};
pub use registry::{Census, ConnectError, Driver, DriverEnd, Processes, Stats, Tally};
pub use request::{Encoding, End, Info, OnEnd, Settings, SpawnError, SpawnRequest};
pub use signal::{NoSignal, Signal, SignalOutcome};
pub use viewer::{Next, Piece, Replay, Viewer};
