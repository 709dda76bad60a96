//! The channel's reading side: adoption at the start, then what the keeper tells, and all tasks.

use std::{io, os::fd::OwnedFd, sync::Arc};

use mhnos_keeper::{
    channel::{Adoption, Descriptor, Exit, Failure, FromKeeper, Pid, Scope, Stage, ToKeeper, Usage, Welcome},
    socket::{Received, RecvError},
};
use mhnos_sandbox::{Enforcement, Outlet};
use tokio::{
    sync::{Notify, watch},
    task::{JoinError, JoinSet},
    time::timeout,
};

use super::{
    Inner, Processes,
    open::{Descriptors, Told, open},
    retire,
    table::Table,
};
use crate::{
    clock::Clock,
    dial::Dials,
    keeper_link::KeeperLink,
    limits::HELLO_DEADLINE,
    network::Network,
    note::Note,
    request::Settings,
    request::SpawnError,
    signal::Signal,
    task::{Panicked, Task},
};

/// What moves everything; the server runs it beside its own tasks. Dropping it stops all process tasks; the programs do
/// not notice.
#[derive(Debug)]
pub struct Driver {
    inner: Arc<Inner>,
    tasks: JoinSet<Result<(), Box<Panicked>>>,
    adopted: Vec<Task>,
    panicked: Option<Box<Panicked>>,
    /// Adoptions that failed, or were about to be forgotten.
    rejected: Vec<ToKeeper>,
}

/// Why the driver ended.
#[derive(Debug, thiserror::Error)]
pub enum DriverEnd {
    /// The keeper has closed its end: the service is over.
    #[error("the keeper has closed the channel")]
    Closed,
    /// The channel failed.
    #[error("the keeper's channel failed")]
    Channel(#[source] io::Error),
    /// A word of the keeper came without all that belongs to it, for want of descriptors, or cannot be read: what it was about
    /// would be waited for for ever. The keeper tells another bridge all.
    #[error("a word of the keeper is lost ({0})")]
    Unheard(&'static str),
    /// The task that serves a process has panicked: it needs another bridge.
    #[error("what serves process {pid} has panicked: {what}")]
    Panicked {
        /// The process.
        pid: Pid,
        /// What the panic said.
        what: String,
    },
    /// Another task has panicked.
    #[error("a task of the processes has failed")]
    Task(#[source] JoinError),
}

/// Why a bridge could not take over.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The channel failed.
    #[error("the keeper's channel failed")]
    Channel(#[source] io::Error),
    /// The keeper has closed its end.
    #[error("the keeper has closed the channel")]
    Closed,
    /// The keeper says something else than it should; what it said, or that it cannot be read.
    #[error("the keeper says what this bridge does not understand: {0}")]
    Unexpected(&'static str),
    /// The keeper did not answer within [`HELLO_DEADLINE`].
    #[error("the keeper does not answer")]
    Timeout,
}

impl From<RecvError> for ConnectError {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::WouldBlock => Self::Unexpected("nothing"),
            RecvError::Closed => Self::Closed,
            RecvError::Malformed(what) => Self::Unexpected(what),
            RecvError::Io(source) => Self::Channel(source),
        }
    }
}

pub(super) async fn connect(
    channel: OwnedFd,
    settings: Settings,
) -> Result<(Processes, Driver), ConnectError> {
    let link = KeeperLink::new(channel).map_err(ConnectError::Channel)?;
    match timeout(HELLO_DEADLINE, hello(link, settings)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ConnectError::Timeout),
    }
}

async fn hello(link: KeeperLink, settings: Settings) -> Result<(Processes, Driver), ConnectError> {
    link.send(&ToKeeper::Hello).await.map_err(ConnectError::Channel)?;
    let FromKeeper::Welcome(welcome) = link.recv().await?.message else {
        return Err(ConnectError::Unexpected("no welcome"));
    };
    let inner = Arc::new(new_inner(link, settings, welcome));
    let mut driver = Driver {
        inner: inner.clone(),
        tasks: JoinSet::new(),
        adopted: Vec::new(),
        panicked: None,
        rejected: Vec::new(),
    };
    loop {
        let Received { message, fds } = inner.link.recv().await?;
        match message {
            FromKeeper::Adopt(adoption) => driver.adopt(adoption, fds),
            FromKeeper::Starting { pid } => {
                let slack = driver.slack();
                driver.inner.lock().expect(pid, slack);
            }
            FromKeeper::Adopted => break,
            FromKeeper::Network { sandbox, process, outlets } => {
                driver.network(sandbox, process, outlets, fds);
            }
            // These may come between the adoptions, of processes that were told already.
            other => driver.tell_process(&other),
        }
    }
    inner.alive.send_replace(inner.lock().alive());
    Ok((Processes { inner }, driver))
}

fn new_inner(link: KeeperLink, settings: Settings, welcome: Welcome) -> Inner {
    let table = Table::new(&welcome, &settings);
    let generation = welcome.generation;
    Inner {
        link,
        settings,
        clock: Clock::new(),
        welcome,
        table: table.into(),
        alive: watch::Sender::new(0),
        drain_asked: watch::Sender::new(false),
        leave_asked: watch::Sender::new(false),
        dials: Dials::new(generation),
        networks: watch::Sender::default(),
        retire: Notify::new(),
        note_turn: tokio::sync::Mutex::new(()),
        order_turn: tokio::sync::Mutex::new(()),
    }
}

impl Driver {
    /// Runs until the channel closes, a word of the keeper is lost, or a task panics. In the last two cases nobody who
    /// waits for a process is told anything as long as this driver is not dropped: the processes go on, and another
    /// bridge serves them.
    pub async fn run(&mut self) -> DriverEnd {
        for message in std::mem::take(&mut self.rejected) {
            if let Err(error) = self.inner.link.send(&message).await {
                return DriverEnd::Channel(error);
            }
        }
        self.start_adopted();
        self.tasks.spawn(aside(retire::run(self.inner.clone())));
        let end = loop {
            tokio::select! {
                received = self.inner.link.recv() => match received {
                    Ok(received) => self.told(received),
                    Err(RecvError::Closed) => break DriverEnd::Closed,
                    Err(RecvError::Io(error)) => break DriverEnd::Channel(error),
                    Err(RecvError::Malformed(what)) => return DriverEnd::Unheard(what),
                    Err(RecvError::WouldBlock) => {}
                },
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(panicked)) => return self.panicked(panicked),
                    Err(error) => return DriverEnd::Task(error),
                },
            }
        };
        // Who waits for a start will get none.
        self.inner.lock().abandon();
        end
    }

    fn panicked(&mut self, panicked: Box<Panicked>) -> DriverEnd {
        let end = DriverEnd::Panicked { pid: panicked.task.process.pid, what: panicked.what.clone() };
        self.panicked = Some(panicked);
        end
    }

    fn start_adopted(&mut self) {
        for task in std::mem::take(&mut self.adopted) {
            self.tasks.spawn(task.run());
        }
    }

    /// Sends when there is room, while others go on.
    fn send_aside(&mut self, message: ToKeeper) {
        let inner = self.inner.clone();
        self.tasks.spawn(aside(async move { _ = inner.link.send(&message).await }));
    }

    fn told(&mut self, received: Received<FromKeeper>) {
        match received.message {
            FromKeeper::Started { pid, os_pid, enforcement, fds } => {
                self.started(pid, os_pid, enforcement, &fds, received.fds);
            }
            FromKeeper::Refused { pid, failure } => self.refused(pid, failure),
            FromKeeper::Network { sandbox, process, outlets } => {
                self.network(sandbox, process, outlets, received.fds);
            }
            // One that an earlier bridge has ordered, started only now.
            FromKeeper::Adopt(adoption) => {
                self.adopt(adoption, received.fds);
                self.inner.alive.send_replace(self.inner.lock().alive());
                self.start_adopted();
            }
            FromKeeper::Welcome(_) | FromKeeper::Starting { .. } | FromKeeper::Adopted => {
                tracing::error!("the keeper speaks out of turn");
            }
            FromKeeper::Dialed { token, outcome } => {
                self.inner.dials.answered(token, outcome, received.fds.into_iter().next());
            }
            other => self.tell_process(&other),
        }
        for message in std::mem::take(&mut self.rejected) {
            self.send_aside(message);
        }
    }

    /// By how much numbers may have gone on since an earlier bridge told of them.
    fn slack(&self) -> Pid {
        self.inner.settings.max_processes as Pid
    }

    fn started(
        &mut self,
        pid: Pid,
        os_pid: i32,
        enforcement: Enforcement,
        names: &[Descriptor],
        fds: Vec<OwnedFd>,
    ) {
        let Some(pending) = self.inner.lock().take_pending(pid) else {
            tracing::error!(pid, "the keeper started what nobody asked for");
            return;
        };
        let descriptors = Descriptors::new(names, fds).ok_or_else(|| io::ErrorKind::InvalidData.into());
        let opened = descriptors.and_then(|descriptors| {
            let told = Told { pid, os_pid, enforcement, descriptors, ports: Vec::new() };
            open(&self.inner, told, pending.note)
        });
        match opened {
            Ok(task) => {
                let process = task.process.clone();
                if *self.inner.leave_asked.borrow() {
                    process.log.viewers_will_be_back();
                }
                if self.inner.lock().started(process.clone()) {
                    process.post(|mail| mail.drain = true);
                }
                self.tasks.spawn(task.run());
                // Whoever asked may have gone; the process is listed all the same.
                _ = pending.reply.send(Ok(process));
            }
            Err(error) => {
                tracing::error!(pid, %error, "cannot take over a started program; killing it");
                self.inner.lock().place_lost(pid);
                self.inner.alive.send_replace(self.inner.lock().alive());
                let errno = error.raw_os_error().unwrap_or(0);
                let failure = Failure { stage: Stage::Stdio, errno, detail: error.to_string() };
                _ = pending.reply.send(Err(SpawnError::Failed(failure)));
                self.send_aside(kill(pid));
            }
        }
    }

    fn network(&self, sandbox: u32, process: Option<Pid>, kinds: Vec<Outlet>, fds: Vec<OwnedFd>) {
        let network = Network { process, outlets: kinds.into_iter().zip(fds).collect() };
        self.inner.networks.send_modify(|networks| _ = networks.insert(sandbox, Arc::new(network)));
    }

    fn refused(&self, pid: Pid, failure: Failure) {
        if let Some(pending) = self.inner.not_started(pid) {
            // An order that crossed with the keeper's word that it stops.
            let crossed = failure.stage == Stage::Order && *self.inner.drain_asked.borrow();
            let error = if crossed { SpawnError::Draining } else { SpawnError::Failed(failure) };
            _ = pending.reply.send(Err(error));
        }
    }

    /// Passes on what concerns one process, or all.
    fn tell_process(&mut self, message: &FromKeeper) {
        match message {
            FromKeeper::Exited { pid, exit } => self.post_exit(*pid, Some(*exit), None),
            FromKeeper::Ended { pid, usage } => self.post_exit(*pid, None, Some(*usage)),
            FromKeeper::Members { pid, members } => {
                let process = self.inner.lock().find(*pid).cloned();
                for asking in process.iter().flat_map(|process| std::mem::take(&mut *process.lock_asking())) {
                    // Nobody may be waiting any more.
                    _ = asking.send(members.clone());
                }
            }
            FromKeeper::Ports { pid, ports } => {
                let process = self.inner.lock().find(*pid).cloned();
                if let Some(process) = process {
                    process.listens_on(ports.clone());
                }
            }
            // One that an earlier bridge asked for, told between the adoptions.
            FromKeeper::Dialed { .. } => {}
            FromKeeper::NetworkGone { sandbox } => {
                self.inner.networks.send_modify(|networks| _ = networks.remove(sandbox));
            }
            FromKeeper::Leave => {
                // First: who is told to leave may send its clients away at once.
                self.inner.lock().all().for_each(|process| process.log.viewers_will_be_back());
                self.inner.leave_asked.send_replace(true);
            }
            FromKeeper::Drain => _ = self.inner.drain_asked.send_replace(true),
            _ => tracing::error!("the keeper speaks out of turn"),
        }
    }

    fn post_exit(&mut self, pid: Pid, exit: Option<Exit>, ended: Option<Usage>) {
        let process = self.inner.lock().find(pid).cloned();
        match process {
            Some(process) => {
                if ended.is_some() {
                    process.listens_on(Vec::new());
                }
                process.post(|mail| {
                    mail.exit = exit.or(mail.exit);
                    mail.ended = ended.or(mail.ended);
                });
            }
            // One that could not be taken over: nobody will ask for it.
            None if ended.is_some() => self.rejected.push(ToKeeper::Forget { pid }),
            None => {}
        }
    }

    fn adopt(&mut self, adoption: Adoption, fds: Vec<OwnedFd>) {
        let Adoption { pid, os_pid, enforcement, note, exit, usage, fds: names, ports } = adoption;
        if self.inner.lock().was_forgetting(pid) {
            self.rejected.push(ToKeeper::Forget { pid });
            return;
        }
        let opened = match (Note::decode(&note), Descriptors::new(&names, fds)) {
            (Some(note), Some(descriptors)) => {
                open(&self.inner, Told { pid, os_pid, enforcement, descriptors, ports }, note)
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        };
        match opened {
            Ok(task) => {
                let slack = self.slack();
                if self.inner.lock().adopted(task.process.clone(), slack) {
                    task.process.post(|mail| mail.drain = true);
                }
                self.adopted.push(task);
                if usage.is_some() {
                    self.inner.lock().had_ended(pid);
                }
                self.post_exit(pid, exit, usage);
            }
            Err(error) => {
                tracing::error!(pid, %error, "cannot adopt a process; ending it");
                _ = self.inner.not_started(pid);
                self.rejected.push(if usage.is_some() { ToKeeper::Forget { pid } } else { kill(pid) });
            }
        }
    }
}

fn kill(pid: Pid) -> ToKeeper {
    ToKeeper::Signal { pid, signal: Signal::KILL.number(), scope: Scope::Tree }
}

/// A task beside those of processes.
async fn aside(work: impl Future<Output = ()>) -> Result<(), Box<Panicked>> {
    work.await;
    Ok(())
}
