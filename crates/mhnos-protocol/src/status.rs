//! `status`: what the service is, how it is set up, and what is missing on this host.

use serde::{Deserialize, Serialize};

use crate::{ProcessType, Stats};

/// `status`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// How it is set up.
    pub config: Config,
    /// Counts.
    pub stats: Stats,
    /// The service's own version.
    pub version: String,
    /// [`PROTOCOL_VERSION`](crate::PROTOCOL_VERSION)
    pub protocol_version: String,
    /// Seconds since the service started, across restarts of the bridge.
    pub uptime: f64,
    /// What a shared sandbox enforces here.
    pub isolation: Isolation,
    /// One entry for each process type, in documented order.
    pub tools: Vec<ToolStatus>,
    /// The bounds a client should know.
    pub limits: WireLimits,
}

/// `config` of `connected` and `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// The workspace's root as processes see it.
    pub workspace: String,
    /// `strict`, `relaxed` or `none`.
    pub sandbox_mode: String,
    /// Whether `openclaw` may be spawned.
    #[serde(rename = "allowOpenClaw")]
    pub allow_openclaw: bool,
    /// How many processes may run.
    pub max_processes: u64,
    /// Bytes of memory of one process with its descendants.
    pub max_memory: u64,
}

/// The walls in force, as opposed to those asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// `T1` (strongest) to `T3`, or `none`.
    pub tier: String,
    /// Names of the layers in force.
    pub layers: Vec<String>,
}

/// Whether a process type can be spawned, and what with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolStatus {
    /// The process type.
    #[serde(rename = "type")]
    pub process_type: ProcessType,
    /// Whether a spawn can work.
    pub available: bool,
    /// The program found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Why it is not available, and the command that would change that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// `limits` of `status`; sizes in bytes, times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WireLimits {
    /// The largest message in; a larger one closes the connection with 1009.
    pub max_message_bytes: u64,
    /// The most bytes of one process's output that are kept.
    pub output_log_bytes: u64,
    /// How far a viewer may be behind before it holds the program back.
    pub viewer_window_bytes: u64,
    /// After this long without taking anything a viewer no longer holds the program back.
    pub stall_deadline_ms: u64,
    /// The most bytes written to a process and not yet read by it.
    pub stdin_queue_bytes: u64,
    /// The largest answer to a pull.
    pub max_pull_bytes: u64,
    /// How many exited processes are retained.
    pub retained_processes: u64,
    /// How long they are retained.
    pub retained_ms: u64,
    /// Between a signal that asks a process to end and SIGKILL.
    pub kill_grace_ms: u64,
    /// The bounds of the door and of a connection.
    #[serde(flatten)]
    pub door: DoorLimits,
}

/// More of `limits`: who may come in, and how fast; 0 where a service does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DoorLimits {
    /// For the first request of a connection; a slower one is answered 408.
    pub handshake_ms: u64,
    /// For the `auth` message, where one is waited for.
    pub auth_ms: u64,
    /// Connections whose first request is not done yet; one more cuts the oldest.
    pub max_handshakes: u64,
    /// The head of an HTTP request; a larger one is answered 431.
    pub max_header_bytes: u64,
    /// WebSockets; more are answered 503.
    pub max_connections: u64,
    /// WebSockets of one address; more are answered 429.
    pub max_connections_per_address: u64,
    /// Fragments of a message; more close the connection with 1008.
    pub max_fragments: u64,
    /// Frames of one connection; it is read no faster.
    pub frames_per_second: u64,
    /// What all messages that arrive hold together; the slowest is given up with 1013.
    pub message_budget_bytes: u64,
    /// Requests not yet answered; a connection with so many is read no further until one is.
    pub max_pending_requests: u64,
    /// Answers not yet taken; likewise.
    pub max_queued_bytes: u64,
    /// Spawns of the whole service; more are answered with `TOO_MANY_REQUESTS`.
    pub spawns_per_second: u64,
    /// Viewers of one process; another is answered with `TOO_MANY_REQUESTS`.
    pub max_viewers: u64,
    /// Between the server's pings; after two without an answer a client is dropped.
    pub ping_interval_ms: u64,
}
