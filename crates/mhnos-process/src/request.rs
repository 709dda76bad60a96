//! What the server asks for when it starts a program, and what is remembered of it.

use std::{fmt, sync::Arc, time::Duration};

use mhnos_keeper::channel::{Failure, Isolation};
use mhnos_sandbox::{Launch, Limits, Stdio};

use crate::{exit::ExitRecord, process::Process};

/// Settings that hold for all processes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Processes that may live at once, lingering ones included; at least 1.
    pub max_processes: usize,
    /// Between the first signal of a stop and SIGKILL, where the request does not say ([`crate::Processes::drain`]
    /// uses each process's own).
    pub kill_grace: Duration,
    /// Ended processes kept for late attaches.
    pub retain_count: usize,
    /// How long each of them is kept.
    pub retain_for: Duration,
    /// The most a request may ask for; higher values are lowered.
    pub limits: Limits,
    /// How long a viewer may take nothing before it stops holding its process back.
    pub stall_deadline: Duration,
    /// Told of each end.
    pub on_end: Option<OnEnd>,
}

/// Who is told when a process has got its exit record; probes are not told of. It must be quick.
#[derive(Clone)]
pub struct OnEnd(pub Arc<dyn Fn(&End<'_>) + Send + Sync>);

impl fmt::Debug for OnEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnEnd")
    }
}

/// The end of a process.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Which.
    pub process: &'a Process,
    /// How.
    pub record: &'a ExitRecord,
    /// It had ended before this bridge began; an earlier one may have told of it.
    pub earlier: bool,
}

/// A program to start.
#[derive(Clone, Debug)]
pub struct SpawnRequest {
    /// What to execute.
    pub launch: Launch,
    /// How its descriptors are connected.
    pub stdio: Stdio,
    /// In which sandbox.
    pub isolation: Isolation,
    /// Limits of its tree; what exceeds [`Settings::limits`] is lowered.
    pub limits: Limits,
    /// Stop it after this time, counted from its start. Any size.
    pub timeout: Option<Duration>,
    /// Between the first signal of a stop and SIGKILL; `None`: [`Settings::kill_grace`].
    pub grace: Option<Duration>,
    /// What clients are told of it.
    pub info: Info,
    /// One of the service's own questions to a program (its version): a pid below
    /// [`FIRST_PID`](mhnos_keeper::channel::FIRST_PID), not counted, not listed, forgotten as soon as it
    /// has ended.
    pub probe: bool,
}

/// What clients are told of a process. Survives the bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// `node`, `python`, `workerd`, `shell`, `openclaw`.
    pub process_type: String,
    /// As the client gave it.
    pub command: Option<String>,
    /// As the client gave them. After the death of a bridge, as many as fit the keeper's note.
    pub args: Vec<String>,
    /// As the client gave it.
    pub name: Option<String>,
    /// How output is delivered as text.
    pub encoding: Encoding,
    /// The server's own, opaque here. At most a few KiB: it must fit the keeper's note.
    pub extra: Vec<u8>,
}

/// How output is delivered in text frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// As UTF-8, invalid bytes replaced.
    #[default]
    Utf8,
    /// As base64, byte-exact.
    Base64,
}

/// Why nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpawnError {
    /// As many processes as allowed are alive or being started.
    #[error("maximum process limit reached ({max})")]
    Limit {
        /// [`Settings::max_processes`].
        max: usize,
    },
    /// The service is stopping.
    #[error("the service is shutting down")]
    Draining,
    /// The keeper could not execute it; nothing of it is left.
    #[error("the program could not be started ({:?}, errno {}): {}", .0.stage, .0.errno, .0.detail)]
    Failed(Failure),
    /// Arguments, environment or [`Info::extra`] exceed what the channel to the keeper carries.
    #[error("the request is too large")]
    TooLarge,
    /// All numbers have been used: four billion processes, or a thousand probes.
    #[error("no process number is left")]
    NoNumber,
    /// The channel to the keeper has closed: this bridge is about to end.
    #[error("the keeper is gone")]
    KeeperGone,
}
