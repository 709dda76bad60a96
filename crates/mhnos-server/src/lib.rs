//! The bridge: the part of the service that clients talk to.
//!
//! It gets everything from the keeper: listening sockets, the channel, the workspace's descriptor. It
//! parses all untrusted input and starts nothing by itself; it may be killed at any time, and the next bridge
//! goes on where it was. [`run`] serves until the keeper asks for a drain, wants another bridge, or is gone.
//!
//! A request's way: `listen` accepts, `door` judges, `http` upgrades, `connection` reads it and lets it take
//! effect with the help of `launcher`, `mhnos-process` and `mhnos-workspace`; `translate` turns what those
//! say into the wire's words. Facts that hold only for the unmodified Web OS page are in `web_os`.

pub mod audit;
pub mod config;
mod connection;
mod crowd;
pub mod descriptors;
mod discovery;
pub mod door;
mod egress;
mod frames;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod http;
mod launcher;
pub mod limits;
mod listen;
mod meter;
mod metrics;
mod neighbours;
mod places;
mod preview;
mod pulse;
mod quota;
mod secrets;
mod service;
mod stream;
mod tasks;
mod tls;
mod translate;
mod turnstile;
mod web_os;

pub use mhnos_runtimes::limits::OPENCLAW_GRACE as LONGEST_GRACE;
pub use secrets::Secrets;

use std::{
    convert::Infallible,
    ffi::CStr,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, atomic::AtomicU64},
};

use mhnos_network::{Gateway, Room};
use mhnos_process::{ConnectError, Driver, DriverEnd, End, OnEnd, Processes, Settings, Welcome};
use mhnos_runtimes::{Context, Proxy};
use mhnos_sandbox::{Enforcement, Layer, Limits, Mode, network::PROXY_PORT};
use mhnos_workspace::{OpenError, Workspace};
use rustix::process::geteuid;
use tokio::{
    net::TcpListener,
    sync::{Notify, oneshot, watch},
    task::{JoinError, JoinSet},
};
use tracing::{info, warn};

use crate::{
    audit::Audit,
    config::{Config, NO_QUOTA},
    connection::Phase,
    crowd::Crowd,
    descriptors::Descriptors,
    door::{Access, Bucket, Door, LogPace},
    http::Front,
    neighbours::Programs,
    places::Places,
    preview::Previews,
    secrets::TokenKeeper,
    service::Service,
    tls::TlsKeeper,
};

/// The name of a bridge's process once it has taken over (proc_pid_comm(5)).
pub const NAME: &CStr = c"mhnos-bridge";

/// What a bridge is started with.
#[derive(Debug)]
pub struct Bridge {
    /// To the keeper.
    pub channel: OwnedFd,
    /// TCP sockets that listen already.
    pub listeners: Vec<OwnedFd>,
    /// The workspace directory.
    pub workspace: OwnedFd,
    /// Where audit lines go, if anywhere.
    pub audit: Option<audit::Destination>,
    /// The user programs run as, where that is not its own.
    pub programs: Option<u32>,
    /// Tokens and keys as they were at the start.
    pub secrets: Secrets,
    /// The settings; [`Config::workspace`] is the absolute path under which processes see the workspace.
    pub config: Config,
}

/// Why a bridge ended other than by a drain.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The processes could not be taken over.
    #[error("the processes could not be taken over from the keeper")]
    Connect(#[source] ConnectError),
    /// The workspace cannot be used.
    #[error("the workspace cannot be used")]
    Workspace(#[source] OpenError),
    /// The audit log cannot be written.
    #[error("the audit log cannot be begun")]
    Audit(#[source] io::Error),
    /// A listening socket cannot be used.
    #[error("a listening socket cannot be used")]
    Listener(#[source] io::Error),
    /// The keeper is gone; so are the processes.
    #[error("the bridge has lost its keeper")]
    Keeper(#[source] DriverEnd),
    /// What serves the processes has failed. They go on, and need another bridge.
    #[error("another bridge must take over the processes")]
    Processes(#[source] DriverEnd),
    /// A task that all depend on has failed, which is to say panicked. The processes need another bridge.
    #[error("another bridge must take over: a task has failed")]
    Task(#[source] JoinError),
}

/// Serves until the keeper asks for a drain, and drains: nothing new, all processes ended, all clients told. Or until
/// another bridge is to take over: then what has begun is finished, and clients are asked to come back. Or until a task
/// panics that others depend on: then all is as if the bridge had been killed, and the keeper starts another.
/// Must be called on the process's first thread, in a tokio runtime with I/O and time enabled.
///
/// # Cancel safety
/// Connections break; processes go on.
pub async fn run(bridge: Bridge) -> Result<(), RunError> {
    let config = &bridge.config;
    let listeners = bridge.listeners.into_iter().map(listen::adopt);
    let listeners: Vec<_> = listeners.collect::<io::Result<_>>().map_err(RunError::Listener)?;
    // Before the keeper is told that this bridge is there: whoever hears of it may change files.
    let tls = TlsKeeper::new(config, &bridge.secrets);
    let tokens = TokenKeeper::new(config, bridge.secrets);
    let audit = Arc::new(Audit::start(bridge.audit).map_err(RunError::Audit)?);
    let (processes, driver) = connect(bridge.channel, process_settings(config, &audit)).await?;
    let workspace = open_workspace(bridge.workspace, config).map_err(RunError::Workspace)?;

    let enforcement = &processes.welcome().enforcement;
    let proxy = egress::host_proxy(&processes.networks().borrow());
    let room = Descriptors::of(config);
    let gateway = Arc::new(gateway(config, room, &listeners, proxy, processes.welcome()));
    let (programs, strangers) = neighbours(bridge.programs, enforcement);
    let (found, toolbox) = watch::channel(None);
    let keys = config.asks_for_a_token().then(|| tokens.tokens());
    let previews = Previews::new(config.preview_domain.clone(), keys, processes.clone(), door(config), room);
    let service = Arc::new(Service {
        previews: Arc::new(previews),
        context: context(config, &workspace, proxy, enforcement),
        processes: processes.clone(),
        gateway: Arc::clone(&gateway),
        workspace,
        toolbox,
        missed: Notify::new(),
        frames: frames::FrameShelf::default(),
        spawns: Mutex::new(spawn_allowance()),
        metrics: metrics::Metrics::default(),
        connections: AtomicU64::new(0),
        audit,
        room,
        config: bridge.config,
    });
    info!(generation = processes.welcome().generation, tier = enforcement.tier.as_str(), "serving");
    service.audit_start();

    let (phase, phases) = watch::channel(Phase::Serving);
    let front = Arc::new(front(&service, &tokens, tls.as_ref(), strangers));
    // Dropped in this order, the last first: whoever serves clients ends before what serves processes.
    let mut driving = JoinSet::new();
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(accept(listener, Arc::clone(&front), Arc::clone(&service), phases.clone()));
    }
    let serving = async {
        let discovery = async {
            tokio::join!(discovery::discover(&service, &found), tokens.keep(), keep_tls(tls));
        };
        let replaced = tokio::select! {
            () = discovery => false,
            () = processes.drain_requested() => false,
            () = processes.leave_requested() => true,
            error = tasks::failure(&mut accepting) => return Err(RunError::Task(error)),
        };
        if replaced {
            leave(&service, &phase, &mut accepting).await;
        } else {
            drain(&service, &phase, &mut accepting).await;
        }
        Ok(())
    };
    let outcome = tokio::select! {
        outcome = serving => outcome,
        Err(error) = drive(driver, &mut driving) => Err(error),
        Err(error) = egress::serve(&gateway, processes.networks(), programs) => Err(RunError::Task(error)),
        never = front.crowd.give_back() => match never {},
        () = service.watch_egress(gateway.refusals()) => unreachable!("the gateway outlives this"),
        () = quota::watch(&service.workspace, &processes) => unreachable!("it watches for ever"),
    };
    // Before what serves the processes ends: no client is to be told that a process has ended because of that.
    accepting.shutdown().await;
    outcome
}

/// Takes over, and has its name from then on: `mhnos-runtime upgrade` looks for it.
async fn connect(channel: OwnedFd, settings: Settings) -> Result<(Processes, Driver), RunError> {
    let connected = Processes::connect(channel, settings).await.map_err(RunError::Connect)?;
    // Only seen from outside.
    let _ = rustix::thread::set_name(NAME);
    Ok(connected)
}

async fn accept(
    listener: TcpListener,
    front: Arc<Front>,
    service: Arc<Service>,
    phases: watch::Receiver<Phase>,
) {
    service.processes.settled().await;
    listen::accept(listener, front, service, phases).await;
}

/// Runs it on a thread that waits for sockets: the caller's would have to be woken for each word of the keeper. The
/// driver is kept until `driving` is dropped.
async fn drive(mut driver: Driver, driving: &mut JoinSet<()>) -> Result<Infallible, RunError> {
    let (tell, told) = oneshot::channel();
    driving.spawn(async move {
        let end = driver.run().await;
        let _ = tell.send(end);
        std::future::pending::<()>().await;
    });
    tokio::select! {
        Ok(end) = told => Err(match end {
            DriverEnd::Closed | DriverEnd::Channel(_) => RunError::Keeper(end),
            DriverEnd::Unheard(_) | DriverEnd::Panicked { .. } | DriverEnd::Task(_) => RunError::Processes(end),
        }),
        error = tasks::failure(driving) => Err(RunError::Task(error)),
    }
}

fn open_workspace(root: OwnedFd, config: &Config) -> Result<Workspace, OpenError> {
    let workspace = Workspace::open(root, &config.workspace.to_string_lossy())?;
    Ok(match config.workspace_quota {
        NO_QUOTA => workspace,
        quota => workspace.with_quota(quota),
    })
}

/// Finishes what has begun: another bridge takes over.
async fn leave(service: &Service, phase: &watch::Sender<Phase>, accepting: &mut JoinSet<()>) {
    info!("leaving: another bridge takes over");
    phase.send_replace(Phase::Leaving);
    while accepting.join_next().await.is_some() {}
    let unread = service.processes.input_handed_over().await;
    service.audit_stop(true).await;
    if unread > 0 {
        warn!(processes = unread, "input that was taken and is not read ends with this bridge");
    }
}

/// Ends all processes, tells all clients.
async fn drain(service: &Service, phase: &watch::Sender<Phase>, accepting: &mut JoinSet<()>) {
    info!("draining");
    service.processes.drain().await;
    phase.send_replace(Phase::Closing);
    while accepting.join_next().await.is_some() {}
    service.audit_stop(false).await;
    info!("drained");
    service.processes.drained().await;
}

fn process_settings(config: &Config, audit: &Arc<Audit>) -> Settings {
    let of_ends = Arc::clone(audit);
    let on_end = move |end: &End<'_>| of_ends.tell(None, &translate::ended(end));
    Settings {
        max_processes: config.max_processes,
        kill_grace: config.kill_grace,
        retain_count: limits::RETAINED_PROCESSES,
        retain_for: limits::RETAINED_FOR,
        limits: Limits {
            memory: config.max_memory,
            pids: config.max_pids,
            cpu_millis: config.max_cpu_millis,
        },
        stall_deadline: limits::STALL_DEADLINE,
        on_end: audit.is_on().then(|| OnEnd(Arc::new(on_end))),
    }
}

fn context(
    config: &Config,
    workspace: &Workspace,
    host_proxy: Option<u16>,
    enforcement: &Enforcement,
) -> Context {
    let own = enforcement.layers.contains(&Layer::NetNamespace);
    let own = own.then_some(Proxy { port: PROXY_PORT, catches: true });
    Context {
        workspace: workspace.visible_path().to_owned(),
        path: config.path.clone(),
        service: config.children.clone(),
        kill_grace: config.kill_grace,
        allow_openclaw: config.allow_openclaw,
        sandbox_mode: config.sandbox.as_str(),
        proxy: own.or(host_proxy.map(|port| Proxy { port, catches: false })),
    }
}

fn spawn_allowance() -> Bucket {
    Bucket::full(limits::SPAWN_BURST, limits::SPAWNS_PER_SECOND, tokio::time::Instant::now())
}

/// The programs, and those of them who must be kept from the service here.
fn neighbours(user: Option<u32>, enforcement: &Enforcement) -> (Programs, Option<Programs>) {
    let strangers = user.map(Programs).filter(|_| enforcement.mode == Mode::Strict);
    (Programs(user.unwrap_or_else(|| geteuid().as_raw())), strangers)
}

fn door(config: &Config) -> Door {
    Door::new(config.hosts.clone(), config.allowed_origins.clone())
        .but_for_previews_of(&config.preview_domain)
}

/// A policy that was set and cannot be kept must not pass for one that is.
fn warn_of_open_network(config: &Config, enforcement: &Enforcement) {
    let restricted =
        [Layer::NetNamespace, Layer::NetProxy].iter().any(|layer| enforcement.layers.contains(layer));
    if !restricted && config.egress != mhnos_network::Egress::default() {
        let (mode, tier) = (enforcement.mode.as_str(), enforcement.tier.as_str());
        warn!(mode, tier, "MHNOS_EGRESS does nothing here: programs have this machine's network");
    }
}

/// The way out for programs whose network is restricted.
fn gateway(
    config: &Config,
    room: Descriptors,
    listeners: &[TcpListener],
    proxy: Option<u16>,
    welcome: &Welcome,
) -> Gateway {
    let enforcement = &welcome.enforcement;
    warn_of_open_network(config, enforcement);
    let ports = listeners.iter().filter_map(|listener| Some(listener.local_addr().ok()?.port()));
    Gateway::new(config.egress.clone(), ports.chain(proxy).collect())
        .of_bridge(welcome.generation)
        .through(config.upstream_proxy.clone())
        .at_most(config.egress_rate)
        .within(descriptors::for_programs())
        .in_room(Room(Arc::new(move || room.are_left())))
}

async fn keep_tls(tls: Option<TlsKeeper>) {
    if let Some(tls) = tls {
        tls.keep().await;
    }
}

fn front(
    service: &Arc<Service>,
    tokens: &TokenKeeper,
    tls: Option<&TlsKeeper>,
    strangers: Option<Programs>,
) -> Front {
    let config = &service.config;
    let access = Access::new(tokens.tokens(), config.asks_for_a_token());
    let (health, scrape, refused) = (Arc::clone(service), Arc::clone(service), Arc::clone(service));
    Front {
        door: door(&service.config),
        previews: Some(Arc::clone(&service.previews)),
        access,
        strangers,
        pace: LogPace::default(),
        hall: Arc::default(),
        places: Places::new(config.max_connections, config.max_connections_per_address),
        crowd: Crowd::new(limits::MESSAGE_BUDGET),
        tls: tls.map(TlsKeeper::config),
        health: Box::new(move || health.health()),
        scrape: Box::new(move || metrics::scrape(&scrape)),
        refused: Box::new(move |refusal| refused.turned_away(&refusal)),
    }
}
