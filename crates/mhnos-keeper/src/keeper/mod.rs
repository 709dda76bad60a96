//! The keeper's loop.
//!
//! One thread, one epoll. It reads typed messages from the bridge and from its own children, and nothing
//! else; it never waits for any of them. All state is in [`Keeper`]; what a bridge needs to go on where
//! another died is told by [`FromKeeper::Adopt`].

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use mhnos_sandbox::{
    Enforcement, SpareGroups, enforcement,
    sys::{self, Reap},
};
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    process::{Resource, WaitId, getrlimit},
};

use crate::{
    bridge::Bridge,
    channel::{FIRST_PID, Failure, FromKeeper, Pid, Stage},
    choose::Missing,
    held::Held,
    init::is_stopped,
    limits::{BATCH, FINISH_TIMEOUT, MAX_FAILED_BRIDGES, TIME_SLICE},
    sandboxes::Sandbox,
    service_manager::ServiceManager,
    settings::Settings,
    spares::Spares,
};

mod dialing;
mod memory;
mod processes;
mod replacing;
mod with_bridge;
mod with_sandboxes;

/// Why the keeper ended other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// No tier that is strong enough holds here.
    #[error("no sandbox that is strong enough can be set up here:{}", told(.0))]
    Sandbox(Vec<Missing>),
    /// The bridge ends as soon as it is started.
    #[error("the bridge ended {0} times in a row before it was ready; its own messages say why")]
    Bridge(u32),
    /// The kernel refused something the keeper cannot do without.
    #[error("cannot {0}")]
    System(&'static str, #[source] io::Error),
}

fn told(missing: &[Missing]) -> String {
    missing.iter().fold(String::new(), |text, missing| text + "\n  " + &missing.to_string())
}

/// Number of the workspace's shared sandbox.
const SHARED: u32 = 0;

pub(crate) struct Keeper {
    settings: Settings,
    enforcement: Enforcement,
    epoll: OwnedFd,
    signals: OwnedFd,
    bridge: Option<Bridge>,
    bridge_due: Option<Instant>,
    bridge_failures: u32,
    /// Some bridge has said hello.
    ever_greeted: bool,
    replacement: replacing::Replacement,
    generation: u32,
    started_ms: u64,
    note: Vec<u8>,
    groups: Option<SpareGroups>,
    spares: Spares,
    suspects: memory::Suspects,
    /// The proxy's socket on the host's loopback, if programs need it: held for bridges to come.
    proxy: Option<Rc<OwnedFd>>,
    sandboxes: BTreeMap<u32, Sandbox>,
    next_sandbox: u32,
    held: BTreeMap<Pid, Held>,
    /// How many descriptors it may have.
    most_descriptors: u64,
    last_pid: Pid,
    last_probe: Pid,
    stopping: Option<Instant>,
    finished: bool,
}

/// What an epoll event is about.
#[derive(Clone, Copy, Debug)]
enum Token {
    Signals,
    Bridge,
    Sandbox(u32),
    Process(Pid),
    Recruit(Pid),
    Memory(Pid),
}

impl Token {
    fn encode(self) -> u64 {
        match self {
            Self::Signals => 0,
            Self::Bridge => 1 << 32,
            Self::Sandbox(id) => 2 << 32 | u64::from(id),
            Self::Process(pid) => 3 << 32 | u64::from(pid),
            Self::Recruit(pid) => 4 << 32 | u64::from(pid),
            Self::Memory(pid) => 5 << 32 | u64::from(pid),
        }
    }

    fn decode(raw: u64) -> Self {
        match raw >> 32 {
            0 => Self::Signals,
            1 => Self::Bridge,
            2 => Self::Sandbox(raw as u32),
            3 => Self::Process(raw as u32),
            5 => Self::Memory(raw as u32),
            _ => Self::Recruit(raw as u32),
        }
    }
}

/// Keeps until it is asked to stop and everything has ended. The process must be single-threaded.
pub fn run(settings: Settings) -> Result<(), KeeperError> {
    // Where the kernel knows of none, programs and service wait for each other as long as any two.
    let _ = sys::set_time_slice(TIME_SLICE);
    let mut keeper = Keeper::new(settings)?;
    keeper.choose_tier()?;
    keeper.start_bridge()?;
    let mut events = Vec::with_capacity(BATCH);
    while !keeper.finished {
        keeper.wait(&mut events)?;
        if events.is_empty() {
            keeper.prepare_ahead();
        }
        for event in events.drain(..) {
            keeper.handle(Token::decode(event.data.u64()));
        }
        keeper.on_time()?;
    }
    keeper.finish();
    Ok(())
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64
}

fn failure(stage: Stage, error: &io::Error) -> Failure {
    Failure { stage, errno: error.raw_os_error().unwrap_or(0), detail: String::new() }
}

impl Keeper {
    fn new(settings: Settings) -> Result<Self, KeeperError> {
        let signals =
            sys::signal_fd(&sys::HANDLED).map_err(|error| KeeperError::System("receive signals", error))?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|errno| KeeperError::System("create an epoll", errno.into()))?;
        let keeper = Self {
            enforcement: enforcement(&settings.policy, settings.cgroups.is_some()),
            settings,
            epoll,
            signals,
            bridge: None,
            bridge_due: None,
            bridge_failures: 0,
            ever_greeted: false,
            replacement: replacing::Replacement::default(),
            generation: 0,
            started_ms: now_ms(),
            note: Vec::new(),
            groups: None,
            spares: Spares::default(),
            suspects: memory::Suspects::default(),
            proxy: None,
            sandboxes: BTreeMap::new(),
            next_sandbox: SHARED + 1,
            held: BTreeMap::new(),
            most_descriptors: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
            last_pid: FIRST_PID - 1,
            last_probe: 0,
            stopping: None,
            finished: false,
        };
        keeper
            .watch(&keeper.signals, Token::Signals)
            .map_err(|error| KeeperError::System("watch for signals", error))?;
        Ok(keeper)
    }

    fn watch(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        let flags = epoll::EventFlags::IN;
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token.encode()), flags)?;
        Ok(())
    }

    fn wait(&self, events: &mut Vec<epoll::Event>) -> Result<(), KeeperError> {
        let sign_of_life = self.settings.service_manager.as_ref().and_then(ServiceManager::due);
        let bridge = [self.bridge_due, self.replacement.leaving, self.hello_due()];
        let others = [self.stopping, sign_of_life, self.suspects.due()];
        let due = bridge.into_iter().chain(others).flatten().min();
        let flush = self.anything_waiting().then(|| Duration::from_millis(1));
        // Spare groups are made when nothing else waits.
        let idle = self.groups.as_ref().is_some_and(SpareGroups::is_short).then_some(Duration::ZERO);
        let now = Instant::now();
        let timeout = due
            .map(|due| due.saturating_duration_since(now))
            .into_iter()
            .chain(flush)
            .chain(self.spares.due(now))
            .chain(idle)
            .min()
            .map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        match epoll::wait(&self.epoll, spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(KeeperError::System("wait for events", errno.into())),
        }
    }

    /// Whether some channel was too full to take everything. Rare, so it is polled instead of watched.
    fn anything_waiting(&self) -> bool {
        self.bridge.as_ref().is_some_and(|bridge| bridge.outbox.is_waiting())
            || self.sandboxes.values().any(|sandbox| sandbox.outbox.is_waiting())
            || self.held.values().any(Held::is_waiting)
    }

    fn flush(&mut self) {
        if let Some(bridge) = &mut self.bridge {
            let _ = bridge.outbox.flush();
        }
        for sandbox in self.sandboxes.values_mut() {
            let _ = sandbox.outbox.flush();
        }
        self.held.values_mut().for_each(Held::flush);
    }

    fn handle(&mut self, token: Token) {
        match token {
            Token::Signals => self.on_signals(),
            Token::Bridge => self.on_bridge(),
            Token::Sandbox(id) => self.on_sandbox(id),
            Token::Process(pid) => self.on_supervisor(pid),
            Token::Recruit(pid) => self.on_recruit(pid),
            Token::Memory(pid) => self.on_memory(pid),
        }
    }

    fn on_time(&mut self) -> Result<(), KeeperError> {
        if self.anything_waiting() {
            self.flush();
        }
        if self.bridge_failures > MAX_FAILED_BRIDGES && !self.ever_greeted {
            return Err(KeeperError::Bridge(self.bridge_failures));
        }
        let now = Instant::now();
        if self.bridge_due.is_some_and(|due| due <= now) {
            self.restart_bridge();
        }
        self.end_slow_leave(now);
        self.end_mute_bridge(now);
        self.look_for_memory_kills(now);
        if let Some(manager) = &mut self.settings.service_manager {
            manager.live(now);
        }
        if self.stopping.is_some_and(|deadline| deadline <= now) {
            tracing::warn!("the drain took too long; ending what is left");
            self.finished = true;
        }
        Ok(())
    }

    fn on_signals(&mut self) {
        while let Some(signal) = sys::next_signal(&self.signals) {
            match signal {
                libc::SIGTERM | libc::SIGINT if self.stopping.is_some() => self.finished = true,
                libc::SIGTERM | libc::SIGINT => self.begin_drain(),
                libc::SIGUSR2 => self.upgrade(),
                libc::SIGCHLD => self.reap(),
                _ => {}
            }
        }
    }

    fn begin_drain(&mut self) {
        tracing::info!("stopping: processes get SIGTERM, then the grace period");
        self.stopping = Some(Instant::now() + self.settings.drain_timeout);
        if let Some(manager) = &self.settings.service_manager {
            manager.stopping(self.settings.drain_timeout + FINISH_TIMEOUT);
        }
        if self.bridge.is_some() {
            self.tell(FromKeeper::Drain, Vec::new());
        } else {
            // The next one drains as soon as it has said hello.
            self.bridge_due = Some(Instant::now());
        }
    }

    fn reap(&mut self) {
        if is_stopped(WaitId::All) {
            self.sandboxes.values().for_each(Sandbox::go_on_if_stopped);
        }
        while let Reap::Ended(child) = sys::reap() {
            if let Some(sandbox) = self.sandboxes.values_mut().find(|one| one.init == Some(child.pid)) {
                sandbox.init = None;
            }
            if self.bridge.as_ref().is_some_and(|bridge| bridge.pid == child.pid) {
                self.hear_last_words();
                self.bridge_ended(child.status);
            }
        }
    }

    /// Ends everything that is left, and waits until it is gone.
    fn finish(&mut self) {
        self.held.clear();
        self.spares.clear();
        self.sandboxes.clear();
        if let Some(bridge) = self.bridge.take() {
            let _ = sys::kill(bridge.pid, libc::SIGKILL);
        }
        let deadline = Instant::now() + FINISH_TIMEOUT;
        loop {
            match sys::reap() {
                Reap::Ended(_) => {}
                Reap::NoChildren => return,
                Reap::NoneYet if Instant::now() >= deadline => return,
                Reap::NoneYet => {
                    let pause = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
                    let mut fds = [rustix::event::PollFd::new(&self.signals, rustix::event::PollFlags::IN)];
                    let _ = rustix::event::poll(&mut fds, Some(&pause));
                    while sys::next_signal(&self.signals).is_some() {}
                }
            }
        }
    }
}
