//! One process as the server sees it. What it shows is set by the process's task ([`crate::task`]), what it
//! is asked for is handed there; only input and terminal sizes go to the descriptors directly.

use std::{
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use mhnos_keeper::channel::{Exit, Isolation, Member, Pid, Port, Scope, Usage};
use mhnos_sandbox::{Enforcement, Limits, Stdio, WindowSize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    exit::{ExitRecord, State},
    input::Input,
    log::OutputLog,
    note::new_key,
    request::Info,
    signal::Command,
    threads::Notify,
    viewer::{Replay, Viewer},
    watched::Watched,
};

/// A process: running, lingering or ended and retained.
#[derive(Debug)]
pub struct Process {
    pub(crate) pid: Pid,
    pub(crate) os_pid: i32,
    pub(crate) info: Info,
    pub(crate) enforcement: Enforcement,
    pub(crate) isolation: Isolation,
    pub(crate) limits: Limits,
    pub(crate) started_ms: u64,
    pub(crate) stdio: Stdio,
    pub(crate) grace: Duration,
    pub(crate) log: Arc<OutputLog>,
    pub(crate) input: Input,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) view: watch::Sender<View>,
    pub(crate) report: watch::Sender<Report>,
    pub(crate) terminal: Mutex<Terminal>,
    pub(crate) mail: Mutex<Mail>,
    /// Who waits for the names of those that live.
    pub(crate) asking: Mutex<Vec<oneshot::Sender<Vec<Member>>>>,
    /// Told when there is mail, or input to move on.
    pub(crate) poke: Arc<tokio::sync::Notify>,
    /// What its tree listens on.
    pub(crate) ports: Mutex<Arc<[Port]>>,
    pub(crate) key: Mutex<String>,
}

/// What is shown of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) state: State,
    /// No process of the tree is left.
    pub(crate) tree_ended: bool,
    /// Nothing can happen any more.
    pub(crate) gone: bool,
}

impl View {
    pub(crate) fn ended(&self, scope: Scope) -> bool {
        matches!(self.state, State::Exited(_)) && (scope == Scope::Leader || self.tree_ended)
    }
}

/// What the report pipe has said.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ended: bool,
}

/// The terminal of a process, while it may be used.
#[derive(Debug, Default)]
pub(crate) struct Terminal {
    pub(crate) size: Option<WindowSize>,
    pub(crate) master: Option<Arc<Watched>>,
}

/// What the keeper has told, until the process's task takes it. Each comes once, so it is no queue.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    pub(crate) exit: Option<Exit>,
    pub(crate) ended: Option<Usage>,
    /// The service stops: so shall the process.
    pub(crate) drain: bool,
    /// The workspace grows beyond its quota.
    pub(crate) over_quota: bool,
    /// The process is no longer retained: its task is to end.
    pub(crate) forget: bool,
    /// Its key has been changed.
    pub(crate) new_key: bool,
}

/// Why input was not taken, or not all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Its stdin is closed, or was never a pipe.
    #[error("the process's stdin is closed")]
    Closed {
        /// Bytes taken before that; they may not have been read.
        taken: usize,
    },
    /// It does not read.
    #[error("the process does not read its input, and its queue is full")]
    Full {
        /// Bytes taken; they will be written if it reads again.
        taken: usize,
    },
    /// It has ended.
    #[error("the process has ended")]
    Exited {
        /// Bytes taken before that; they may not have been read.
        taken: usize,
    },
}

impl WriteError {
    /// How many bytes were taken.
    pub fn taken(self) -> usize {
        match self {
            Self::Closed { taken } | Self::Full { taken } | Self::Exited { taken } => taken,
        }
    }
}

/// The process had ended already, with all its descendants, or this bridge is ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the process has ended")]
pub struct Gone;

impl Process {
    /// Our number for it.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The kernel's number.
    pub fn os_pid(&self) -> i32 {
        self.os_pid
    }

    /// What clients are told.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The walls it runs behind.
    pub fn enforcement(&self) -> &Enforcement {
        &self.enforcement
    }

    /// In which sandbox.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// The limits of its tree, as ordered from the keeper.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// When it was started, milliseconds since the Unix epoch.
    pub fn started_ms(&self) -> u64 {
        self.started_ms
    }

    /// How its descriptors are connected, with the window size it was started with.
    pub fn stdio(&self) -> Stdio {
        self.stdio
    }

    /// Its terminal's size now, if it has one.
    pub fn window_size(&self) -> Option<WindowSize> {
        self.lock_terminal().size
    }

    /// The TCP ports that its tree listens on, sorted. Viewers are woken when they change.
    pub fn ports(&self) -> Arc<[Port]> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A word of [`KEY_LETTERS`](crate::limits::KEY_LETTERS) lower-case letters and digits that nobody can guess,
    /// the process's own. Survives the bridge.
    pub fn key(&self) -> String {
        self.lock_key().clone()
    }

    /// Gives it another key.
    pub fn change_key(&self) {
        *self.lock_key() = new_key();
        // The same ports, but at other addresses: viewers are to look again.
        let ports = self.ports().to_vec();
        *self.ports.lock().unwrap_or_else(PoisonError::into_inner) = ports.into();
        self.log.wake_viewers();
        self.post(|mail| mail.new_key = true);
    }

    /// Where it is in its life.
    pub fn state(&self) -> State {
        self.view.borrow().state
    }

    /// Its exit record, once all its output is in the log.
    pub fn exit(&self) -> Option<ExitRecord> {
        match self.state() {
            State::Exited(record) => Some(record),
            State::Running | State::Stopping { .. } => None,
        }
    }

    /// Whether it has exited and descendants live on, or its output is still held open.
    pub fn lingers(&self) -> bool {
        let view = self.view.borrow();
        matches!(view.state, State::Exited(_)) && !view.gone
    }

    /// The end of its log: the position after the last byte.
    pub fn end_position(&self) -> u64 {
        self.log.end()
    }

    /// Waits for its exit record. `Err` if this bridge ends first.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    pub async fn exited(&self) -> Result<ExitRecord, Gone> {
        self.until(|view| view.ended(Scope::Leader)).await?;
        self.exit().ok_or(Gone)
    }

    /// What it has written to its report pipe, as soon as that is more than `after` bytes: the whole, from
    /// its start. `None` when nothing more will come.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    pub async fn report(&self, after: usize) -> Option<Vec<u8>> {
        let mut report = self.report.subscribe();
        tokio::select! {
            biased;
            _ = report.wait_for(|report| report.ended || report.bytes.len() > after) => {}
            () = self.commands.closed() => {}
        }
        let now = self.report.borrow();
        (now.bytes.len() > after).then(|| now.bytes.clone())
    }

    /// A new viewer. `wake.notify_one()` is called on new output, on exit and when the terminal's size
    /// changes: one task should wait on it, for as many viewers as it likes.
    pub fn attach(&self, replay: Replay, wake: Arc<Notify>) -> Viewer {
        Viewer::new(self.log.clone(), replay, wake)
    }

    /// Queues input, whole and in the order of calls. Returns at once if it fits the queue
    /// ([`INPUT_QUEUE`](crate::limits::INPUT_QUEUE)); else waits as long as the process goes on
    /// reading, and fails with `Full` when it has taken nothing for
    /// [`INPUT_STALL`](crate::limits::INPUT_STALL), at once if it has not for as long already.
    ///
    /// # Cancel safety
    /// What was queued until then will be written.
    pub async fn write(&self, data: Bytes) -> Result<(), WriteError> {
        self.write_unless(data, pending()).await
    }

    /// The same; what still waits when `given_up` is ready is refused with `Full`.
    ///
    /// # Cancel safety
    /// What was queued until then will be written.
    pub async fn write_unless(
        &self,
        data: Bytes,
        given_up: impl Future<Output = ()>,
    ) -> Result<(), WriteError> {
        self.input.write(data, given_up).await
    }

    /// How often anybody has begun to write to it: when this changes, somebody waits for what comes of it.
    pub fn inputs(&self) -> u64 {
        self.input.begun()
    }

    /// End of file after what is queued: closes a pipe, sends the terminal's end-of-file character (^D).
    /// Later writes to a pipe fail with `Closed`. Returns when it is queued.
    ///
    /// # Cancel safety
    /// Happens at once or not at all.
    pub async fn close_stdin(&self) -> Result<(), WriteError> {
        self.input.close().await
    }

    /// Sets the terminal's size and tells all viewers. Does nothing without a terminal.
    pub fn resize(&self, size: WindowSize) -> Result<(), Gone> {
        let mut terminal = self.lock_terminal();
        if terminal.size.is_none() {
            return Ok(());
        }
        let master = terminal.master.as_ref().ok_or(Gone)?;
        rustix::termios::tcsetwinsize(master.get_ref(), winsize(size)).map_err(|_| Gone)?;
        terminal.size = Some(size);
        drop(terminal);
        self.log.wake_viewers();
        Ok(())
    }

    /// Waits until what is shown satisfies `done`. `Err` if the process's task ends before.
    pub(crate) async fn until(&self, mut done: impl FnMut(&View) -> bool) -> Result<(), Gone> {
        let mut view = self.view.subscribe();
        tokio::select! {
            biased;
            outcome = view.wait_for(|view| done(view)) => return outcome.map(drop).map_err(|_| Gone),
            () = self.commands.closed() => {}
        }
        // The task shows the end before it ends.
        if done(&self.view.borrow()) { Ok(()) } else { Err(Gone) }
    }

    pub(crate) fn listens_on(&self, ports: Vec<Port>) {
        *self.ports.lock().unwrap_or_else(PoisonError::into_inner) = ports.into();
        self.log.wake_viewers();
    }

    fn lock_key(&self) -> MutexGuard<'_, String> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_terminal(&self) -> MutexGuard<'_, Terminal> {
        self.terminal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_mail(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_asking(&self) -> MutexGuard<'_, Vec<oneshot::Sender<Vec<Member>>>> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves mail for the process's task.
    pub(crate) fn post(&self, write: impl FnOnce(&mut Mail)) {
        write(&mut self.lock_mail());
        self.poke.notify_one();
    }
}

fn winsize(size: WindowSize) -> rustix::termios::Winsize {
    rustix::termios::Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 }
}
