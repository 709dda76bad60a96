//! The answers to requests. Key order is the contract's: `type`, `id`, the fields of 1.0 in their old
//! order, then those of 1.1.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::frame::framed;
use crate::status::{Isolation, Status};
use crate::{Encoding, ErrorCode, Malformed, Pid, ProcessType, Reason, Usage};

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To `spawn`.
    Spawned(Spawned),
    /// To `attach`, after the replay.
    Attached(Attached),
    /// To `detach`.
    Detached(OfPid),
    /// To a `write` with an id: the bytes are queued for the process, in order.
    Written(OfPid),
    /// To a `closeStdin` with an id.
    StdinClosed(OfPid),
    /// To a `resize` with an id.
    Resized(OfPid),
    /// To `kill`.
    Killed(Killed),
    /// To `list`.
    ProcessList(ProcessList),
    /// To `ports`.
    Ports(PortList),
    /// To `revokePreview`.
    PreviewRevoked(OfPid),
    /// To `status`.
    Status(Box<Status>),
    /// To `ping`.
    Pong {
        /// Milliseconds since the Unix epoch.
        time: u64,
    },
    /// To `auth`.
    Authenticated(Authenticated),
    /// To an `fsync` push. (A pull is written by [`PullWriter`](crate::PullWriter).)
    Pushed(PushResults),
    /// To anything that went wrong.
    Error(ErrorReply),
}

/// `spawned`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spawned {
    /// The new process.
    pub pid: Pid,
    /// Always `success`, as in 1.0.
    #[serde(default)]
    pub status: Success,
    /// The walls it really runs behind.
    pub isolation: Isolation,
}

/// The constant `"success"` of 1.0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Success {
    /// The only value: failures are `error` messages.
    #[default]
    Success,
}

/// `authenticated`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authenticated {
    /// The token's name; null where the service asks for none.
    #[serde(default)]
    pub name: Option<String>,
    /// What the connection may do.
    pub scope: TokenScope,
}

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenScope {
    /// Everything.
    Control,
    /// Looking on: `list`, `status`, `ping`, `attach` and `detach`.
    View,
}

impl TokenScope {
    /// The name on the wire and in a token file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::View => "view",
        }
    }
}

/// `attached`
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attached {
    /// Whose output.
    pub pid: Pid,
    /// What the process does now.
    pub status: ProcessStatus,
    /// The position the replay has reached.
    pub seq: u64,
    /// The terminal's size, for a process on one.
    #[serde(default)]
    pub pty: Option<WindowSize>,
}

/// Answers that say no more than which process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfPid {
    /// Which.
    pub pid: Pid,
}

/// `killed`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Killed {
    /// Whom.
    pub pid: Pid,
    /// Whether the process has ended (its `exit` went first) or the signal was merely delivered.
    pub ended: bool,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessStatus {
    /// It runs.
    Running,
    /// It was told to end, and runs still.
    Stopping,
    /// It has ended and is retained.
    Exited,
}

/// The size of a terminal in character cells, each 1..=65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

/// `processList`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessList {
    /// By pid.
    pub processes: Vec<ProcessInfo>,
    /// Since the service started.
    pub stats: Stats,
}

/// One process of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessInfo {
    /// Which.
    pub pid: Pid,
    /// What kind.
    #[serde(rename = "type")]
    pub process_type: ProcessType,
    /// As the client gave it; null if it gave none.
    #[serde(default)]
    pub command: Option<String>,
    /// As the client gave them, without the last ones where they are long.
    pub args: Vec<String>,
    /// Milliseconds since the Unix epoch.
    pub start_time: u64,
    /// What it does.
    pub status: ProcessStatus,
    /// The label it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The terminal's size, or null for a process on pipes.
    pub pty: Option<WindowSize>,
    /// How its `data` is encoded unless an `attach` asks otherwise.
    pub encoding: Encoding,
    /// The position of its output log's end.
    pub seq: u64,
    /// The walls it really runs behind.
    pub isolation: Isolation,
    /// How it ended, if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitInfo>,
    /// Who lives on, or keeps its output open, after it has ended; absent if nobody does. Empty if those are no
    /// descendants of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lingering: Option<Vec<Lingerer>>,
    /// The ports it listens on; absent if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<OpenPort>,
}

/// A descendant that has outlived its process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lingerer {
    /// The system's number for it, in the sandbox.
    pub os_pid: i32,
    /// The name of its program, at most 15 bytes.
    pub name: String,
}

/// How a retained process ended; the fields of an `exit` event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExitInfo {
    /// Its exit code, or null if a signal ended it.
    pub code: Option<i32>,
    /// The signal's name, or null.
    pub signal: Option<String>,
    /// Milliseconds it ran.
    pub runtime: u64,
    /// Why.
    pub reason: Reason,
    /// What it used.
    pub usage: Usage,
}

/// `ports`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortList {
    /// By pid and port.
    pub ports: Vec<OpenPort>,
}

/// A port that is listened on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPort {
    /// By whom.
    pub pid: Pid,
    /// The TCP port inside the sandbox.
    pub port: u16,
    /// Its preview.
    pub url: String,
}

/// Counts since the service started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Processes started.
    pub total_spawned: u64,
    /// Processes ended by a kill, a timeout or a limit.
    pub total_killed: u64,
    /// Processes that run now.
    pub active: u64,
}

/// `results` of an `fsync` push.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushResults {
    /// Entries written.
    pub synced: u64,
    /// Entries not written.
    pub failed: u64,
    /// Why, in the order of the entries: of all that failed, unless that were too much for a message.
    pub errors: Vec<PushError>,
}

/// One entry that was not written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushError {
    /// As the client gave it, or `files[3]` if it gave none that can be read.
    pub path: String,
    /// For a person.
    pub error: String,
}

/// `error`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// For a person.
    pub error: String,
    /// For a program.
    pub code: ErrorCode,
    /// The process it is about, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<Pid>,
    /// Of a `write` that found the queue full ([`ErrorCode::StdinFull`]): how many of its bytes were taken. What follows
    /// them is for the client to write again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<u64>,
}

impl ErrorReply {
    /// An error that is about no process in particular.
    pub fn new(code: ErrorCode, error: impl Into<String>) -> Self {
        Self { error: error.into(), code, pid: None, taken: None }
    }

    /// The same, about a process.
    #[must_use]
    pub fn about(mut self, pid: Pid) -> Self {
        self.pid = Some(pid);
        self
    }

    /// The same, of a write of which so many bytes were taken.
    #[must_use]
    pub fn after_taking(mut self, bytes: u64) -> Self {
        self.taken = Some(bytes);
        self
    }

    /// No process has this pid.
    pub fn process_not_found(pid: Pid) -> Self {
        Self::new(ErrorCode::ProcessNotFound, format!("Process {pid} not found")).about(pid)
    }
}

impl From<Malformed> for ErrorReply {
    fn from(malformed: Malformed) -> Self {
        Self::new(malformed.code, malformed.text)
    }
}

impl Reply {
    /// The `type` on the wire.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Spawned(_) => "spawned",
            Self::Attached(_) => "attached",
            Self::Detached(_) => "detached",
            Self::Written(_) => "written",
            Self::StdinClosed(_) => "stdinClosed",
            Self::Resized(_) => "resized",
            Self::Killed(_) => "killed",
            Self::ProcessList(_) => "processList",
            Self::Ports(_) => "ports",
            Self::PreviewRevoked(_) => "previewRevoked",
            Self::Status(_) => "status",
            Self::Pong { .. } => "pong",
            Self::Authenticated(_) => "authenticated",
            Self::Pushed(_) => "fsyncResult",
            Self::Error(_) => "error",
        }
    }

    /// The message. `id` is the request's own, verbatim; without one the key is absent.
    pub fn to_json(&self, id: Option<&RawValue>) -> String {
        self.to_json_as(self.type_name(), id)
    }

    /// The same fields under another `type`, for a client that only looks at some types.
    pub fn to_json_as(&self, kind: &str, id: Option<&RawValue>) -> String {
        #[derive(Serialize)]
        struct Pong {
            time: u64,
        }
        #[derive(Serialize)]
        struct Pushed<'a> {
            operation: &'static str,
            status: Success,
            results: &'a PushResults,
        }
        match self {
            Self::Spawned(body) => framed(kind, id, body),
            Self::Attached(body) => framed(kind, id, body),
            Self::Detached(body)
            | Self::Written(body)
            | Self::StdinClosed(body)
            | Self::Resized(body)
            | Self::PreviewRevoked(body) => framed(kind, id, body),
            Self::Killed(body) => framed(kind, id, body),
            Self::ProcessList(body) => framed(kind, id, body),
            Self::Ports(body) => framed(kind, id, body),
            Self::Status(body) => framed(kind, id, &**body),
            Self::Pong { time } => framed(kind, id, &Pong { time: *time }),
            Self::Authenticated(body) => framed(kind, id, body),
            Self::Pushed(results) => {
                framed(kind, id, &Pushed { operation: "push", status: Success::Success, results })
            }
            Self::Error(body) => framed(kind, id, body),
        }
    }
}
