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
}
