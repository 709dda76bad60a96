//! What all connections share.

use std::{
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use mhnos_process::Processes;
use mhnos_protocol::{self as wire, PROTOCOL_VERSION};
use mhnos_runtimes::{Context, Toolbox};
use mhnos_workspace::{PullSettings, Workspace};
use tokio::sync::watch;
use tracing::debug;

use crate::{
    config::Config,
    door::Bucket,
    frames::FrameShelf,
    http::{Health, HealthProcesses, HealthSandbox, TurnedAway},
    limits,
    metrics::Metrics,
    translate,
};

/// The service's own version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What all connections share. It outlives each of them and none of them changes it.
pub(crate) struct Service {
    pub(crate) config: Config,
    pub(crate) processes: Processes,
    pub(crate) workspace: Workspace,
    /// What recipes need to know.
    pub(crate) context: Context,
    /// The programs found; `None` until all have been looked for.
    pub(crate) toolbox: watch::Receiver<Option<Arc<Toolbox>>>,
    pub(crate) frames: FrameShelf,
    /// The pace of spawns.
    pub(crate) spawns: Mutex<Bucket>,
    /// What this bridge has counted.
    pub(crate) metrics: Metrics,
}

impl Service {
    /// `config` of `connected` and `status`.
    pub(crate) fn wire_config(&self) -> wire::Config {
        wire::Config {
            workspace: self.workspace.visible_path().to_owned(),
            sandbox_mode: self.config.sandbox.as_str().to_owned(),
            allow_openclaw: self.config.allow_openclaw,
            max_processes: self.config.max_processes as u64,
            max_memory: self.config.max_memory,
        }
    }

    pub(crate) fn status(&self) -> wire::Status {
        let toolbox = self.toolbox.borrow().clone();
        wire::Status {
            config: self.wire_config(),
            stats: translate::stats(&self.processes.stats()),
            version: VERSION.to_owned(),
            protocol_version: PROTOCOL_VERSION.to_owned(),
            uptime: self.uptime(),
            isolation: translate::isolation(&self.processes.welcome().enforcement),
            tools: translate::tools(toolbox.as_deref(), self.config.allow_openclaw),
            limits: self.wire_limits(),
        }
    }

    fn wire_limits(&self) -> wire::WireLimits {
        wire::WireLimits {
            max_message_bytes: limits::MAX_MESSAGE as u64,
            output_log_bytes: self.config.output_log,
            viewer_window_bytes: mhnos_process::limits::VIEWER_WINDOW,
            stall_deadline_ms: limits::STALL_DEADLINE.as_millis() as u64,
            stdin_queue_bytes: mhnos_process::limits::INPUT_QUEUE as u64,
            max_pull_bytes: mhnos_workspace::limits::PULL_BYTES,
            retained_processes: limits::RETAINED_PROCESSES as u64,
            retained_ms: limits::RETAINED_FOR.as_millis() as u64,
            kill_grace_ms: self.config.kill_grace.as_millis() as u64,
            door: self.door_limits(),
        }
    }

    fn door_limits(&self) -> wire::DoorLimits {
        wire::DoorLimits {
            handshake_ms: limits::HANDSHAKE_DEADLINE.as_millis() as u64,
            auth_ms: limits::AUTH_DEADLINE.as_millis() as u64,
            max_handshakes: limits::MAX_HANDSHAKES as u64,
            max_header_bytes: limits::MAX_REQUEST_HEAD as u64,
            max_connections: self.config.max_connections as u64,
            max_connections_per_address: self.config.max_connections_per_address as u64,
            max_fragments: limits::MAX_FRAGMENTS as u64,
            frames_per_second: limits::FRAMES_PER_SECOND as u64,
            message_budget_bytes: limits::MESSAGE_BUDGET as u64,
            max_pending_requests: limits::MAX_PENDING as u64,
            max_queued_bytes: limits::MAX_QUEUED_BYTES as u64,
            spawns_per_second: limits::SPAWNS_PER_SECOND as u64,
            max_viewers: limits::MAX_VIEWERS as u64,
            ping_interval_ms: limits::PING_INTERVAL.as_millis() as u64,
        }
    }

    /// What a pull takes.
    pub(crate) fn pull_settings(&self) -> PullSettings {
        PullSettings { skip: self.config.pull_skip.clone(), ..PullSettings::default() }
    }

    /// The answer to `/health`.
    pub(crate) fn health(&self) -> Health {
        let stats = self.processes.stats();
        let enforcement = &self.processes.welcome().enforcement;
        Health {
            status: "ok",
            uptime: self.uptime(),
            processes: HealthProcesses {
                total_spawned: stats.total_spawned,
                total_killed: stats.total_killed,
                active: stats.active as u64,
            },
            version: VERSION,
            sandbox: HealthSandbox { mode: enforcement.mode.as_str(), tier: enforcement.tier.as_str() },
        }
    }

    /// Somebody was turned away at the door.
    pub(crate) fn turned_away(&self, refusal: &TurnedAway<'_>) {
        debug!(peer = %refusal.peer, cause = ?refusal.cause, why = refusal.why, "turned away");
        self.metrics.refused.add(refusal.cause, 1);
    }

    /// Seconds since the service started, over all its bridges.
    fn uptime(&self) -> f64 {
        now_ms().saturating_sub(self.processes.welcome().started_ms) as f64 / 1000.0
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
