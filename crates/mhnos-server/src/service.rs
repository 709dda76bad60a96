//! What all connections share.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use mhnos_network::Gateway;
use mhnos_process::Processes;
use mhnos_protocol::{self as wire, PROTOCOL_VERSION};
use mhnos_runtimes::{Context, Toolbox};
use mhnos_workspace::{PullSettings, Workspace};
use tokio::sync::{Notify, watch};
use tracing::debug;

use crate::{
    audit::{Audit, Event, Who},
    config::Config,
    descriptors::Descriptors,
    door::{Bucket, Visitor},
    frames::FrameShelf,
    http::{Health, HealthProcesses, HealthSandbox, TurnedAway},
    limits,
    metrics::{Label, Metrics, Way},
    preview::Previews,
    translate,
};

/// The service's own version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What all connections share. It outlives each of them and none of them changes it.
pub(crate) struct Service {
    pub(crate) config: Config,
    pub(crate) processes: Processes,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) workspace: Workspace,
    /// What recipes need to know.
    pub(crate) context: Context,
    /// The programs found; `None` until all have been looked for.
    pub(crate) toolbox: watch::Receiver<Option<Arc<Toolbox>>>,
    /// Told when a spawn lacked a program: it is looked for again.
    pub(crate) missed: Notify,
    pub(crate) frames: FrameShelf,
    /// The pace of spawns.
    pub(crate) spawns: Mutex<Bucket>,
    /// Connections this bridge has numbered.
    pub(crate) connections: AtomicU64,
    pub(crate) audit: Arc<Audit>,
    pub(crate) room: Descriptors,
    /// What this bridge has counted.
    pub(crate) metrics: Metrics,
    pub(crate) previews: Arc<Previews>,
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
            ping_interval_ms: self.config.ping_interval.as_millis() as u64,
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
        if self.audit.is_on() {
            let cause = refusal.cause.name();
            let event = Event::Refuse { peer: refusal.peer, cause, why: refusal.why.into() };
            self.audit.tell(None, &event);
        }
    }

    /// Counts and writes down what programs may not reach, for as long as it is polled.
    pub(crate) async fn watch_egress(&self, mut refusals: mhnos_network::Refusals) {
        loop {
            let refused = refusals.next().await;
            self.metrics.egress_refusals.add(Way::of(refused.via), refused.count);
            if self.audit.is_on() {
                let target =
                    refused.port.map_or(refused.host.clone(), |port| format!("{}:{port}", refused.host));
                let (pid, cause) = (refused.owner.0, refused.rule.into());
                let event =
                    Event::EgressRefused { pid, target: target.as_str().into(), cause, count: refused.count };
                self.audit.tell(None, &event);
            }
        }
    }

    /// Who a connection is, for the audit log.
    pub(crate) fn who(&self, peer: SocketAddr, visitor: &Visitor, token: Option<&str>) -> Who {
        let number = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let origin = match visitor {
            Visitor::Page(origin) => Some(origin.to_string()),
            Visitor::Program => None,
        };
        let connection = format!("{}.{number}", self.processes.welcome().generation);
        Who { peer, connection, origin, principal: token.map(str::to_owned) }
    }

    pub(crate) fn audit_start(&self) {
        let welcome = self.processes.welcome();
        let (mode, tier) = (welcome.enforcement.mode.as_str(), welcome.enforcement.tier.as_str());
        self.audit.tell(None, &Event::Start { version: VERSION, bridge: welcome.generation, mode, tier });
    }

    /// Writes the last line and waits for all of them, for a bounded time.
    pub(crate) async fn audit_stop(&self, replaced: bool) {
        if !self.audit.is_on() {
            return;
        }
        self.audit.tell(None, &Event::Stop { bridge: self.processes.welcome().generation, replaced });
        let audit = Arc::clone(&self.audit);
        // A panic there leaves lines unwritten, and nothing can be done about them here.
        let _ = tokio::task::spawn_blocking(move || audit.close()).await;
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
