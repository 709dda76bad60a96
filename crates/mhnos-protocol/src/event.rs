//! What the service tells without being asked. (Output frames are events too: see [`crate::output`].)

use serde::{Deserialize, Serialize};

use crate::frame::framed;
use crate::{Config, PROTOCOL_VERSION, Pid};

/// An event.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The first message of every connection.
    Connected(Connected),
    /// A process has ended; all its output was sent before.
    Exit(Exit),
    /// Output between two positions can no longer be had.
    Gap(Gap),
    /// A process listens on a port, or no longer does.
    Port(Port),
    /// A terminal has another size.
    Size(Size),
    /// A program was refused something outside. Only for who asked ([`crate::Events`]).
    Egress(Egress),
}

/// `egress`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    /// Whose program, if its sandbox is its own.
    pub pid: Option<Pid>,
    /// The name or address it wanted.
    pub host: String,
    /// The port, or null for a question for a name.
    pub port: Option<u16>,
    /// The rule that refused it.
    pub rule: String,
    /// How it asked: `proxy`, `connection` or `name`.
    pub via: String,
    /// How many alike since this was last told, this one included.
    pub count: u64,
    /// How many others were not told before this one, because they were too many.
    pub others: u64,
}

/// `size`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Whose terminal.
    pub pid: Pid,
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

/// `connected`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connected {
    /// [`PROTOCOL_VERSION`]
    pub protocol_version: String,
    /// How the service is set up.
    pub config: Config,
}

impl Connected {
    /// With this build's protocol version.
    pub fn new(config: Config) -> Self {
        Self { protocol_version: PROTOCOL_VERSION.to_owned(), config }
    }
}

/// `exit`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code, or null if a signal ended it.
    pub code: Option<i32>,
    /// The signal's name (`SIGTERM`), or null.
    pub signal: Option<String>,
    /// Milliseconds it ran.
    pub runtime: u64,
    /// Which.
    pub pid: Pid,
    /// Why.
    pub reason: Reason,
    /// The final position of its output log.
    pub seq: u64,
    /// What it used.
    pub usage: Usage,
}

/// Why a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// It ended by itself with a code.
    Exited,
    /// A signal ended it that no client asked for.
    Signaled,
    /// A client's `kill` ended it.
    Killed,
    /// Its `timeout` was over.
    Timeout,
    /// It used more memory than allowed.
    Memory,
    /// It started more processes than allowed.
    Pids,
    /// The workspace grew beyond its quota while it ran.
    Quota,
    /// The service shut down.
    Shutdown,
    /// It vanished with its sandbox; how it ended is not known.
    Lost,
}

/// What a process used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// CPU time, user and system, in milliseconds.
    pub cpu_ms: u64,
    /// The largest resident set of any one process of the tree.
    pub max_rss_bytes: u64,
    /// Bytes written to stdout and stderr.
    pub output_bytes: u64,
}

/// `gap`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Whose output.
    pub pid: Pid,
    /// The position of the first byte that is missing.
    pub from: u64,
    /// The position at which output goes on.
    pub to: u64,
}

/// `port`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Who listens.
    pub pid: Pid,
    /// The TCP port inside the sandbox.
    pub port: u16,
    /// Its preview: where a browser reaches it.
    pub url: String,
    /// Since or no longer.
    pub state: PortState,
}

/// Whether a port is being listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortState {
    /// It is.
    Open,
    /// No longer.
    Closed,
}

impl Event {
    /// The message.
    pub fn to_json(&self) -> String {
        match self {
            Self::Connected(body) => framed("connected", None, body),
            Self::Exit(body) => framed("exit", None, body),
            Self::Gap(body) => framed("gap", None, body),
            Self::Port(body) => framed("port", None, body),
            Self::Size(body) => framed("size", None, body),
            Self::Egress(body) => framed("egress", None, body),
        }
    }
}
