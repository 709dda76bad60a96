//! The keeper's loop.
//!
//! One thread, one epoll. It reads typed messages from the bridge and from its own children, and nothing
//! else; it never waits for any of them. All state is in [`Keeper`]; what a bridge needs to go on where
//! another died is told by [`FromKeeper::Adopt`].

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use mhnos_sandbox::{
    Enforcement, enforcement,
    sys::{self, Reap},
};
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
};

use crate::{
    bridge::Bridge,
    channel::{
        Exit, ExitStatus, FIRST_PID, Failure, FromKeeper, Isolation, MAX_NOTE, Order, Pid, Stage, ToKeeper,
        Usage, Welcome,
    },
    held::{Held, Phase, check},
    inner::{Execute, FromInit, FromSupervisor, ToSupervisor},
    limits::{BATCH, MAX_FAILED_BRIDGES, MAX_HELD, SHARED_PIDS_FACTOR},
    sandboxes::Sandbox,
    settings::Settings,
    socket::RecvError,
};

/// Why the keeper ended other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The first sandbox could not be built.
    #[error("the sandbox cannot be set up: {} ({})", .0.detail, io::Error::from_raw_os_error(.0.errno))]
    Sandbox(Failure),
    /// The bridge ends as soon as it is started.
    #[error("the bridge ended {0} times in a row before it was ready; its own messages say why")]
    Bridge(u32),
    /// The kernel refused something the keeper cannot do without.
    #[error("cannot {0}")]
    System(&'static str, #[source] io::Error),
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
    generation: u32,
    started_ms: u64,
    note: Vec<u8>,
    sandboxes: BTreeMap<u32, Sandbox>,
    next_sandbox: u32,
    held: BTreeMap<Pid, Held>,
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
}

impl Token {
    fn encode(self) -> u64 {
        match self {
            Self::Signals => 0,
            Self::Bridge => 1 << 32,
            Self::Sandbox(id) => 2 << 32 | u64::from(id),
            Self::Process(pid) => 3 << 32 | u64::from(pid),
        }
    }

    fn decode(raw: u64) -> Self {
        match raw >> 32 {
            0 => Self::Signals,
            1 => Self::Bridge,
            2 => Self::Sandbox(raw as u32),
            _ => Self::Process(raw as u32),
        }
    }
}

/// Keeps until it is asked to stop and everything has ended. The process must be single-threaded.
pub fn run(settings: Settings) -> Result<(), KeeperError> {
    let mut keeper = Keeper::new(settings)?;
    keeper.open_shared_sandbox().map_err(KeeperError::Sandbox)?;
    keeper.start_bridge()?;
    let mut events = Vec::with_capacity(BATCH);
    while !keeper.finished {
        keeper.wait(&mut events)?;
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
            enforcement: enforcement(&settings.policy),
            settings,
            epoll,
            signals,
            bridge: None,
            bridge_due: None,
            bridge_failures: 0,
            generation: 0,
            started_ms: now_ms(),
            note: Vec::new(),
            sandboxes: BTreeMap::new(),
            next_sandbox: SHARED + 1,
            held: BTreeMap::new(),
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
        let due = [self.bridge_due, self.stopping].into_iter().flatten().min();
        let flush = self.anything_waiting().then(|| Duration::from_millis(1));
        let timeout = due
            .map(|due| due.saturating_duration_since(Instant::now()))
            .into_iter()
            .chain(flush)
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
            || self.held.values().any(|held| match &held.phase {
                Phase::Starting(control) | Phase::Running { control, .. } => control.is_waiting(),
                Phase::Ended { .. } => false,
            })
    }

    fn flush(&mut self) {
        if let Some(bridge) = &mut self.bridge {
            let _ = bridge.outbox.flush();
        }
        for sandbox in self.sandboxes.values_mut() {
            let _ = sandbox.outbox.flush();
        }
        for control in self.held.values_mut().filter_map(Held::control) {
            let _ = control.flush();
        }
    }

    fn handle(&mut self, token: Token) {
        match token {
            Token::Signals => self.on_signals(),
            Token::Bridge => self.on_bridge(),
            Token::Sandbox(id) => self.on_sandbox(id),
            Token::Process(pid) => self.on_supervisor(pid),
        }
    }

    fn on_time(&mut self) -> Result<(), KeeperError> {
        if self.anything_waiting() {
            self.flush();
        }
        if self.bridge_failures > MAX_FAILED_BRIDGES && self.generation == self.bridge_failures {
            return Err(KeeperError::Bridge(self.bridge_failures));
        }
        let now = Instant::now();
        if self.bridge_due.is_some_and(|due| due <= now) {
            self.start_bridge()?;
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
                libc::SIGCHLD => self.reap(),
                _ => {}
            }
        }
    }

    fn begin_drain(&mut self) {
        tracing::info!("stopping: processes get SIGTERM, then the grace period");
        self.stopping = Some(Instant::now() + self.settings.drain_timeout);
        if self.bridge.is_some() {
            self.tell(FromKeeper::Drain, Vec::new());
        } else {
            self.finished = true;
        }
    }

    fn reap(&mut self) {
        while let Reap::Ended(child) = sys::reap() {
            if self.bridge.as_ref().is_some_and(|bridge| bridge.pid == child.pid) {
                self.on_bridge();
                self.bridge_ended(child.status);
            }
        }
    }

    // The bridge.

    fn start_bridge(&mut self) -> Result<(), KeeperError> {
        self.bridge_due = None;
        let bridge = Bridge::start(&self.settings.bridge)
            .map_err(|error| KeeperError::System("start the bridge", error))?;
        self.generation += 1;
        self.watch(&bridge.outbox, Token::Bridge)
            .map_err(|error| KeeperError::System("watch the bridge", error))?;
        self.bridge = Some(bridge);
        Ok(())
    }

    fn bridge_ended(&mut self, status: Result<u8, i32>) {
        let Some(bridge) = self.bridge.take() else { return };
        if self.stopping.is_some() {
            self.finished = true;
            return;
        }
        self.bridge_failures = if bridge.was_healthy() { 0 } else { self.bridge_failures + 1 };
        let pause = Bridge::backoff(self.bridge_failures.saturating_sub(1));
        tracing::error!(?status, restart_in = ?pause, "the bridge ended; processes go on");
        self.bridge_due = Some(Instant::now() + pause);
    }

    fn tell(&mut self, message: FromKeeper, fds: Vec<OwnedFd>) {
        // A bridge that has not said hello yet will be told all by `greet`.
        if let Some(bridge) = &mut self.bridge
            && bridge.greeted
            && let Err(error) = bridge.outbox.send(message, fds)
        {
            // A bridge that cannot be told is ended; the next one is told everything.
            tracing::error!(%error, "the bridge does not listen");
            let _ = sys::kill(bridge.pid, libc::SIGKILL);
        }
    }

    fn on_bridge(&mut self) {
        for _ in 0..BATCH {
            let Some(bridge) = &self.bridge else { return };
            match bridge.outbox.recv::<ToKeeper>() {
                Ok(received) => self.obey(received.message),
                Err(RecvError::WouldBlock) => return,
                Err(RecvError::Malformed(what)) => tracing::error!(what, "malformed message from the bridge"),
                Err(RecvError::Closed | RecvError::Io(_)) => {
                    let pid = bridge.pid;
                    let _ = epoll::delete(&self.epoll, &bridge.outbox);
                    // It may have closed the channel and live on; the exit is then seen by `reap`.
                    let _ = sys::kill(pid, libc::SIGKILL);
                    return;
                }
            }
        }
    }

    fn obey(&mut self, message: ToKeeper) {
        match message {
            ToKeeper::Hello => self.greet(),
            ToKeeper::Spawn(order) => self.spawn(order),
            ToKeeper::Signal { pid, signal, scope } => {
                if (1..=64).contains(&signal)
                    && let Some(control) = self.held.get_mut(&pid).and_then(Held::control)
                {
                    let _ = control.send(ToSupervisor::Signal { signal, scope }, Vec::new());
                }
            }
            ToKeeper::CloseStdin { pid } => {
                if let Some(held) = self.held.get_mut(&pid) {
                    held.close_stdin();
                }
            }
            ToKeeper::Note { pid, note } if note.len() <= MAX_NOTE => {
                if pid == 0 {
                    self.note = note;
                } else if let Some(held) = self.held.get_mut(&pid) {
                    held.note = note;
                }
            }
            ToKeeper::Note { pid, .. } => tracing::error!(pid, "a note over its bound"),
            ToKeeper::Forget { pid } => {
                if self.held.get(&pid).is_some_and(|held| matches!(held.phase, Phase::Ended { .. })) {
                    self.held.remove(&pid);
                }
            }
            ToKeeper::Drained => self.finished = self.stopping.is_some(),
        }
    }

    fn greet(&mut self) {
        let Some(bridge) = &mut self.bridge else { return };
        if std::mem::replace(&mut bridge.greeted, true) {
            return;
        }
        let welcome = Welcome {
            generation: self.generation,
            started_ms: self.started_ms,
            enforcement: self.enforcement.clone(),
            note: self.note.clone(),
        };
        self.tell(FromKeeper::Welcome(welcome), Vec::new());
        let known: Vec<Pid> = self.held.keys().copied().collect();
        for pid in known {
            self.introduce(pid);
        }
        self.tell(FromKeeper::Adopted, Vec::new());
        if self.stopping.is_some() {
            self.tell(FromKeeper::Drain, Vec::new());
        }
    }

    /// Tells the bridge of a process that another bridge started, if it is far enough to be told of.
    fn introduce(&mut self, pid: Pid) {
        let Some(held) = self.held.get(&pid) else { return };
        if matches!(held.phase, Phase::Starting(_)) {
            return;
        }
        match held.adoption() {
            Ok((message, fds)) => self.tell(message, fds),
            Err(error) => tracing::error!(pid, %error, "cannot hand a process over"),
        }
    }

    // Processes.

    fn spawn(&mut self, mut order: Order) {
        let pid = order.pid;
        if let Err(failure) = self.try_spawn(&mut order) {
            self.held.remove(&pid);
            self.tell(FromKeeper::Refused { pid, failure }, Vec::new());
        }
    }

    fn try_spawn(&mut self, order: &mut Order) -> Result<(), Failure> {
        self.admit(order)?;
        let id = self.sandbox_for(order.isolation)?;
        let io_failed = |error: io::Error| failure(Stage::Stdio, &error);
        let (mut held, inside) = Held::prepare(
            order,
            id,
            self.generation,
            self.enforcement.clone(),
            self.settings.log_bytes,
        )
        .map_err(io_failed)?;
        if let Some(control) = held.control() {
            self.watch(&*control, Token::Process(order.pid)).map_err(io_failed)?;
        }
        let factor = if order.isolation == Isolation::Shared { SHARED_PIDS_FACTOR } else { 1 };
        let execute = Execute {
            launch: inside.launch,
            stdio: order.stdio,
            limits: order.limits,
            nproc: u64::from(order.limits.pids) * factor,
            slots: inside.slots,
        };
        self.held.insert(order.pid, held);
        let Some(sandbox) = self.sandboxes.get_mut(&id) else {
            return Err(failure(Stage::Sandbox, &io::ErrorKind::NotFound.into()));
        };
        sandbox.execute(execute, inside.fds).map_err(|error| failure(Stage::Fork, &error))
    }

    /// Numbers only ever rise, limits are at most the operator's, and no more is held than may be.
    fn admit(&mut self, order: &mut Order) -> Result<(), Failure> {
        let refuse =
            |detail: &str| Err(Failure { stage: Stage::Order, errno: 0, detail: detail.to_owned() });
        let last = if order.pid < FIRST_PID { &mut self.last_probe } else { &mut self.last_pid };
        if order.pid <= *last {
            return refuse("this pid has been used");
        }
        *last = order.pid;
        if self.held.len() >= MAX_HELD || self.stopping.is_some() {
            return refuse("the service is stopping or holds too many processes");
        }
        check(order)?;
        let most = &self.settings.limits;
        order.limits.memory = order.limits.memory.min(most.memory);
        order.limits.pids = order.limits.pids.min(most.pids);
        order.limits.cpu_millis = order.limits.cpu_millis.min(most.cpu_millis);
        Ok(())
    }

    fn on_supervisor(&mut self, pid: Pid) {
        for _ in 0..BATCH {
            let Some(control) = self.held.get_mut(&pid).and_then(Held::control) else { return };
            match control.recv::<FromSupervisor>() {
                Ok(received) => self.on_report(pid, received.message, received.fds.into_iter().next()),
                Err(RecvError::WouldBlock) => return,
                Err(RecvError::Malformed(what)) => tracing::error!(pid, what, "malformed report"),
                Err(RecvError::Closed | RecvError::Io(_)) => return self.lose(pid),
            }
        }
    }

    fn on_report(&mut self, pid: Pid, report: FromSupervisor, master: Option<OwnedFd>) {
        let Some(held) = self.held.get_mut(&pid) else { return };
        match report {
            FromSupervisor::Started { os_pid } => {
                held.started(os_pid, master);
                if held.generation != self.generation {
                    return self.introduce(pid);
                }
                match held.start_message() {
                    Ok((message, fds)) => self.tell(message, fds),
                    Err(error) => {
                        let failure = failure(Stage::Stdio, &error);
                        self.remove(pid);
                        self.tell(FromKeeper::Refused { pid, failure }, Vec::new());
                    }
                }
            }
            FromSupervisor::Failed(failure) => {
                self.remove(pid);
                self.tell(FromKeeper::Refused { pid, failure }, Vec::new());
            }
            FromSupervisor::Exited(exit) => {
                held.exited(exit);
                self.tell(FromKeeper::Exited { pid, exit }, Vec::new());
            }
            FromSupervisor::Ended(usage) => self.end(pid, usage),
        }
    }

    /// The supervisor is gone without a word.
    fn lose(&mut self, pid: Pid) {
        let Some(held) = self.held.get(&pid) else { return };
        let sandbox = held.sandbox;
        match held.phase {
            Phase::Starting(_) => {
                self.on_sandbox(sandbox);
                let unknown =
                    Failure { stage: Stage::Sandbox, errno: 0, detail: "the sandbox has ended".to_owned() };
                let failure =
                    self.sandboxes.get(&sandbox).and_then(|s| s.failure.clone()).unwrap_or(unknown);
                self.remove(pid);
                self.tell(FromKeeper::Refused { pid, failure }, Vec::new());
            }
            Phase::Running { .. } => self.end(pid, Usage::default()),
            Phase::Ended { .. } => {}
        }
    }

    fn end(&mut self, pid: Pid, usage: Usage) {
        let lost = Exit { status: ExitStatus::Lost, time_ms: now_ms(), limit: None, usage };
        let Some(held) = self.held.get_mut(&pid) else { return };
        let was_told = matches!(held.phase, Phase::Running { exit: Some(_), .. });
        let exit = held.ended(usage, lost);
        let sandbox = held.sandbox;
        if !was_told {
            self.tell(FromKeeper::Exited { pid, exit }, Vec::new());
        }
        self.tell(FromKeeper::Ended { pid, usage }, Vec::new());
        self.close_private(sandbox);
    }

    fn remove(&mut self, pid: Pid) {
        if let Some(held) = self.held.remove(&pid) {
            self.close_private(held.sandbox);
        }
    }

    // Sandboxes.

    fn open_shared_sandbox(&mut self) -> Result<(), Failure> {
        self.create_sandbox(SHARED)?;
        self.sandboxes.get(&SHARED).map_or(Ok(()), Sandbox::wait_ready)
    }

    fn sandbox_for(&mut self, isolation: Isolation) -> Result<u32, Failure> {
        match isolation {
            Isolation::Shared if self.sandboxes.contains_key(&SHARED) => Ok(SHARED),
            Isolation::Shared => self.create_sandbox(SHARED),
            Isolation::Private => {
                let id = self.next_sandbox;
                self.next_sandbox = self.next_sandbox.wrapping_add(1).max(SHARED + 1);
                self.create_sandbox(id)
            }
        }
    }

    fn create_sandbox(&mut self, id: u32) -> Result<u32, Failure> {
        let sandbox = Sandbox::create(&self.settings.policy)
            .map_err(|error| Failure { detail: "create the sandbox".into(), ..failure(Stage::Sandbox, &error) })?;
        self.watch(&sandbox.outbox, Token::Sandbox(id)).map_err(|error| failure(Stage::Sandbox, &error))?;
        self.sandboxes.insert(id, sandbox);
        Ok(id)
    }

    fn on_sandbox(&mut self, id: u32) {
        while let Some(sandbox) = self.sandboxes.get_mut(&id) {
            match sandbox.outbox.recv::<FromInit>() {
                Ok(received) => match received.message {
                    FromInit::Ready => {}
                    FromInit::SetupFailed(failure) => sandbox.failure = Some(failure),
                },
                Err(RecvError::WouldBlock) => return,
                Err(RecvError::Malformed(what)) => tracing::error!(id, what, "malformed report of init"),
                Err(RecvError::Closed | RecvError::Io(_)) => {
                    if id == SHARED {
                        tracing::warn!("the shared sandbox has ended; the next spawn builds it anew");
                    }
                    let failure = sandbox.failure.take();
                    self.sandboxes.remove(&id);
                    if failure.is_none() {
                        return;
                    }
                    return self.refuse_starting(id, failure.as_ref());
                }
            }
        }
    }

    /// Programs that were waiting for walls that could not be put up.
    fn refuse_starting(&mut self, id: u32, failure: Option<&Failure>) {
        let starting = |held: &Held| held.sandbox == id && matches!(held.phase, Phase::Starting(_));
        let waiting: Vec<Pid> = self.held.values().filter(|held| starting(held)).map(|held| held.pid).collect();
        for pid in waiting {
            self.held.remove(&pid);
            if let Some(failure) = failure.cloned() {
                self.tell(FromKeeper::Refused { pid, failure }, Vec::new());
            }
        }
    }

    fn close_private(&mut self, id: u32) {
        if id != SHARED {
            self.sandboxes.remove(&id);
        }
    }

    /// Ends everything that is left, and waits until it is gone.
    fn finish(&mut self) {
        self.held.clear();
        self.sandboxes.clear();
        if let Some(bridge) = self.bridge.take() {
            let _ = sys::kill(bridge.pid, libc::SIGKILL);
        }
        let deadline = Instant::now() + crate::limits::FINISH_TIMEOUT;
        loop {
            match sys::reap() {
                Reap::Ended(_) => {}
                Reap::NoChildren => return,
                Reap::NoneYet if Instant::now() >= deadline => return,
                Reap::NoneYet => {
                    let pause = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
                    let mut fds =
                        [rustix::event::PollFd::new(&self.signals, rustix::event::PollFlags::IN)];
                    let _ = rustix::event::poll(&mut fds, Some(&pause));
                    while sys::next_signal(&self.signals).is_some() {}
                }
            }
        }
    }
}
