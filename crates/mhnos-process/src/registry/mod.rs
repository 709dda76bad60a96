//! All processes: admission, numbers, retention, and the end of the service.

mod census;
mod driver;
mod open;
mod retire;
mod table;

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mhnos_keeper::channel::{Member, Order, Pid, ToKeeper, Welcome};
use mhnos_sandbox::Limits;
use tokio::{
    net::TcpStream,
    sync::{Notify, oneshot, watch},
    time::{Instant, timeout},
};

use self::table::{Admission, Pending, Table};
pub use self::{
    census::{Census, Tally},
    driver::{ConnectError, Driver, DriverEnd},
};
use crate::{
    clock::{Clock, millis, unix_ms},
    dial::{self, DialError, Dials},
    keeper_link::KeeperLink,
    limits::{
        KILL_PATIENCE, LEAVE_INPUT, LEAVE_INPUT_INTERVAL, MEMBERS_DEADLINE, OUTPUT_DRAIN, SERVICE_NOTE,
        SETTLE_PATIENCE,
    },
    network::Networks,
    note::Note,
    process::Process,
    request::{Settings, SpawnError, SpawnRequest},
    state::Memory,
};

/// All processes of the service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Processes {
    inner: Arc<Inner>,
}

/// Counters, for `status` and `list`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Programs started since the service began, over all bridges; no probes.
    pub total_spawned: u64,
    /// Of those, ended by a kill, a timeout or a limit.
    pub total_killed: u64,
    /// Alive or being started now, lingering ones included.
    pub active: usize,
}

/// What all parts of the crate share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) link: KeeperLink,
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    welcome: Welcome,
    table: Mutex<Table>,
    /// Processes alive or being started, probes included.
    alive: watch::Sender<usize>,
    drain_asked: watch::Sender<bool>,
    leave_asked: watch::Sender<bool>,
    pub(crate) dials: Dials,
    networks: watch::Sender<Networks>,
    /// Told when something has become forgettable, or the service's note must be written.
    retire: Notify,
    /// Held from building the service's note until it is sent: an older one must not come later.
    note_turn: tokio::sync::Mutex<()>,
    /// Held from taking a number until its order is sent: the keeper takes rising numbers only.
    order_turn: tokio::sync::Mutex<()>,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process has got its exit record.
    pub(crate) fn recorded(&self, pid: Pid, killed: bool) {
        if killed {
            self.lock().count_kill(pid);
        }
    }

    /// Whether a process had ended, with its tree, before it was adopted; until that is shown.
    pub(crate) fn had_ended(&self, pid: Pid) -> bool {
        self.lock().is_unsettled(pid)
    }

    /// A process has got its record, and nothing of its tree is left: its place is free.
    pub(crate) fn over(&self, pid: Pid) {
        self.lock().over(pid);
    }

    /// The same has been shown to whoever looks.
    pub(crate) fn shown_over(&self, pid: Pid, ended_ms: Option<u64>) {
        let mut table = self.lock();
        table.shown_over(pid, ended_ms);
        self.alive.send_replace(table.alive());
        self.retire.notify_one();
    }

    /// Sends the service's note as the table has it now.
    async fn send_service_note(&self) -> io::Result<()> {
        let _turn = self.note_turn.lock().await;
        let note = self.lock().service_note().encode();
        self.link.send(&ToKeeper::Note { pid: 0, note }).await
    }
}

impl Processes {
    /// Says hello to the keeper and adopts what an earlier bridge started. Must be called in a tokio runtime
    /// with I/O and time enabled. The processes move once the [`Driver`] runs.
    pub async fn connect(channel: OwnedFd, settings: Settings) -> Result<(Self, Driver), ConnectError> {
        driver::connect(channel, settings).await
    }

    /// The keeper's welcome. Its `note` is this crate's own; the server's is
    /// [`Processes::service_note`].
    pub fn welcome(&self) -> &Welcome {
        &self.inner.welcome
    }

    /// What the server of an earlier bridge left with [`Processes::set_service_note`]; empty at first.
    pub fn service_note(&self) -> Vec<u8> {
        self.inner.lock().service_note().extra.clone()
    }

    /// Leaves bytes for the server of the next bridge. Returns `false`, and keeps what was there, if they exceed
    /// [`SERVICE_NOTE`]; `false` also if the keeper is gone.
    pub async fn set_service_note(&self, note: Vec<u8>) -> bool {
        if note.len() > SERVICE_NOTE {
            return false;
        }
        self.inner.lock().set_extra(note);
        self.inner.send_service_note().await.is_ok()
    }

    /// Starts a program. Counted against the limit before anything else happens, so that a burst cannot
    /// pass it.
    ///
    /// # Cancel safety
    /// The program may be started all the same; it is then listed like any other.
    pub async fn spawn(&self, request: SpawnRequest) -> Result<Arc<Process>, SpawnError> {
        let inner = &*self.inner;
        let SpawnRequest { launch, stdio, isolation, limits, timeout, grace, info, probe } = request;
        let limits = lowered(limits, inner.settings.limits);
        let timeout_at = timeout.map(|timeout| inner.clock.now().saturating_add(millis(timeout)));
        let memory = Memory::new(millis(grace.unwrap_or(inner.settings.kill_grace)), timeout_at);
        let note = Note::new(&info, isolation, limits, stdio, unix_ms(), memory);
        let note = note.fitted().ok_or(SpawnError::TooLarge)?;
        let (reply, answer) = oneshot::channel();
        let (encoded, pending) = (note.encode(), Pending { note, reply });
        let turn = inner.order_turn.lock().await;
        let admission = Admission::new(inner, pending, probe)?;
        let order = Order { pid: admission.pid, launch, stdio, isolation, limits, note: encoded };
        match inner.link.send(&ToKeeper::Spawn(order)).await {
            Ok(()) => admission.sent(),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(SpawnError::TooLarge),
            Err(_) => return Err(SpawnError::KeeperGone),
        }
        drop(turn);
        answer.await.unwrap_or(Err(SpawnError::KeeperGone))
    }

    /// By number: alive or retained. Probes are not found.
    pub fn get(&self, pid: Pid) -> Option<Arc<Process>> {
        self.inner.lock().get(pid)
    }

    /// By ascending number: those alive (lingering ones included) and, if asked for, the retained. No probes.
    pub fn list(&self, include_exited: bool) -> Vec<Arc<Process>> {
        self.inner.lock().list(include_exited)
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        self.inner.lock().stats()
    }

    /// All in numbers, by type.
    pub fn census(&self) -> Vec<Census> {
        self.inner.lock().census()
    }

    /// Resolves when what had ended before this bridge began is shown as ended: until then it seems to run, and
    /// takes a place. That is soon, and never later than [`SETTLE_PATIENCE`]. The [`Driver`] must be running.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    pub async fn settled(&self) {
        let mut alive = self.inner.alive.subscribe();
        let settling = async {
            while !self.inner.lock().is_settled() {
                // The sender is ours: it cannot be gone.
                _ = alive.changed().await;
            }
        };
        if tokio::time::timeout(SETTLE_PATIENCE, settling).await.is_err() {
            tracing::warn!("what ended before still waits for its last output; going on");
        }
    }

    /// Resolves when the keeper asks for a drain (the service got SIGTERM or SIGINT).
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    pub async fn drain_requested(&self) {
        // The sender is ours: it cannot be gone.
        _ = self.inner.drain_asked.subscribe().wait_for(|asked| *asked).await;
    }

    /// Who is alive of a process's tree: some of them if they are many, nobody if it cannot be told within
    /// [`MEMBERS_DEADLINE`].
    ///
    /// # Cancel safety
    /// Nothing is left behind but an answer that nobody takes.
    pub async fn members(&self, process: &Process) -> Vec<Member> {
        let (sender, answer) = oneshot::channel();
        let first = {
            let mut asking = process.lock_asking();
            asking.retain(|other| !other.is_closed());
            asking.push(sender);
            asking.len() == 1
        };
        let message = ToKeeper::Members { pid: process.pid };
        if first && self.inner.link.send(&message).await.is_err() {
            return Vec::new();
        }
        timeout(MEMBERS_DEADLINE, answer).await.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Connects to what a process's tree listens on at this TCP port: to nothing else, whatever listens there too.
    ///
    /// # Cancel safety
    /// A connection may have been made, and is closed.
    pub async fn dial(&self, process: &Process, port: u16) -> Result<TcpStream, DialError> {
        dial::dial(&self.inner, process, port).await
    }

    /// The networks of sandboxes, as they come and go.
    pub fn networks(&self) -> watch::Receiver<Networks> {
        self.inner.networks.subscribe()
    }

    /// Resolves when the keeper wants this bridge replaced.
    pub async fn leave_requested(&self) {
        _ = self.inner.leave_asked.subscribe().wait_for(|asked| *asked).await;
    }

    /// Waits until all input that was taken has been handed to the processes, or [`LEAVE_INPUT`] has passed: what
    /// is queued here ends with this bridge. Pipes are made so large that they take it whether it is read or not. Returns
    /// how many processes still have not got theirs.
    pub async fn input_handed_over(&self) -> usize {
        let until = Instant::now() + LEAVE_INPUT;
        self.inner.lock().all().for_each(|process| process.input.hand_over());
        loop {
            let waiting = self.inner.lock().all().filter(|process| process.input.unfinished()).count();
            if waiting == 0 || Instant::now() >= until {
                return waiting;
            }
            tokio::time::sleep(LEAVE_INPUT_INTERVAL).await;
        }
    }

    /// Ends everything because the workspace grows beyond its quota, by SIGKILL. Returns at
    /// once, with the number of processes.
    pub fn stop_over_quota(&self) -> usize {
        let alive = self.inner.lock().list(false);
        for process in &alive {
            process.post(|mail| mail.over_quota = true);
        }
        alive.len()
    }

    /// Starts nothing new, and stops everything: SIGTERM, the grace period, SIGKILL. Returns when all have
    /// ended, with their exit records set; or when the kernel has not ended what was killed within
    /// [`KILL_PATIENCE`].
    ///
    /// # Cancel safety
    /// What began goes on.
    pub async fn drain(&self) {
        let processes = self.inner.lock().drain();
        let grace = processes.iter().map(|process| process.grace).max().unwrap_or(Duration::ZERO);
        for process in processes {
            process.post(|mail| mail.drain = true);
        }
        let patience = grace.saturating_add(OUTPUT_DRAIN + KILL_PATIENCE);
        let mut alive = self.inner.alive.subscribe();
        if tokio::time::timeout(patience, alive.wait_for(|alive| *alive == 0)).await.is_err() {
            tracing::warn!(
                left = *self.inner.alive.borrow(),
                "processes survive SIGKILL; not waiting for them"
            );
        }
    }

    /// Tells the keeper that the drain is over and all clients have been told.
    pub async fn drained(&self) {
        if let Err(error) = self.inner.link.send(&ToKeeper::Drained).await {
            tracing::debug!(%error, "the keeper is gone");
        }
    }
}

fn lowered(asked: Limits, most: Limits) -> Limits {
    Limits {
        memory: asked.memory.min(most.memory),
        pids: asked.pids.min(most.pids),
        cpu_millis: asked.cpu_millis.min(most.cpu_millis),
    }
}
