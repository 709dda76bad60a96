//! One process as the server sees it.

use std::sync::Arc;

use bytes::Bytes;
use mhnos_keeper::channel::{Isolation, Pid, Scope};
use mhnos_sandbox::{Enforcement, Limits, Stdio, WindowSize};
use tokio::sync::Notify;

use crate::{
    exit::{ExitRecord, State},
    request::Info,
    signal::Signal,
    viewer::{Replay, Viewer},
};

/// A process: running, lingering or ended and retained.
#[derive(Debug)]
pub struct Process {
    _private: (),
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

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalOutcome {
    /// It was sent.
    Delivered,
    /// All it was for has been reaped, and the exit record is set.
    Ended,
    /// SIGKILL was sent and the kernel has not ended everything yet
    /// ([`KILL_PATIENCE`](crate::limits::KILL_PATIENCE)). It goes on being repeated.
    Survives,
}

/// The process had ended already, with all its descendants, or this bridge is ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the process has ended")]
pub struct Gone;

impl Process {
    /// Our number for it.
    pub fn pid(&self) -> Pid {
        todo!()
    }

    /// The kernel's number.
    pub fn os_pid(&self) -> i32 {
        todo!()
    }

    /// What clients are told.
    pub fn info(&self) -> &Info {
        todo!()
    }

    /// The walls it runs behind.
    pub fn enforcement(&self) -> &Enforcement {
        todo!()
    }

    /// In which sandbox.
    pub fn isolation(&self) -> Isolation {
        todo!()
    }

    /// The limits of its tree, as ordered from the keeper.
    pub fn limits(&self) -> Limits {
        todo!()
    }

    /// When it was started, milliseconds since the Unix epoch.
    pub fn started_ms(&self) -> u64 {
        todo!()
    }

    /// How its descriptors are connected, with the window size it was started with.
    pub fn stdio(&self) -> Stdio {
        todo!()
    }

    /// Its terminal's size now, if it has one.
    pub fn window_size(&self) -> Option<WindowSize> {
        todo!()
    }

    /// Where it is in its life.
    pub fn state(&self) -> State {
        todo!()
    }

    /// Its exit record, once all its output is in the log.
    pub fn exit(&self) -> Option<ExitRecord> {
        todo!()
    }

    /// Whether it has exited and descendants live on, or its output is still held open.
    pub fn lingers(&self) -> bool {
        todo!()
    }

    /// The end of its log: the position after the last byte.
    pub fn end_position(&self) -> u64 {
        todo!()
    }

    /// Waits for its exit record. `Err` if this bridge ends first.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    pub async fn exited(&self) -> Result<ExitRecord, Gone> {
        todo!()
    }

    /// What it has written to its report pipe, as soon as that is more than `after` bytes: the whole, from
    /// its start. `None` when nothing more will come.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    pub async fn report(&self, after: usize) -> Option<Vec<u8>> {
        let _ = after;
        todo!()
    }

    /// A new viewer. `wake.notify_one()` is called on new output, on exit and when the terminal's size
    /// changes: one task should wait on it, for as many viewers as it likes.
    pub fn attach(&self, replay: Replay, wake: Arc<Notify>) -> Viewer {
        let _ = (replay, wake);
        todo!()
    }

    /// Queues input, whole and in the order of calls. Returns at once if it fits the queue
    /// ([`INPUT_QUEUE`](crate::limits::INPUT_QUEUE)); else waits as long as the process goes on
    /// reading, and fails with `Full` when it has taken nothing for
    /// [`INPUT_STALL`](crate::limits::INPUT_STALL).
    ///
    /// # Cancel safety
    /// What was queued until then will be written.
    pub async fn write(&self, data: Bytes) -> Result<(), WriteError> {
        let _ = data;
        todo!()
    }

    /// End of file after what is queued: closes a pipe, sends the terminal's end-of-file character (^D).
    /// Later writes to a pipe fail with `Closed`. Returns when it is queued.
    ///
    /// # Cancel safety
    /// Happens at once or not at all.
    pub async fn close_stdin(&self) -> Result<(), WriteError> {
        todo!()
    }

    /// Sets the terminal's size and tells all viewers. Does nothing without a terminal.
    pub fn resize(&self, size: WindowSize) -> Result<(), Gone> {
        let _ = size;
        todo!()
    }

    /// Sends a signal. SIGTERM, SIGINT and SIGHUP begin a stop: SIGKILL follows to the same scope after the
    /// grace period, and this returns when the exit record is set and, for [`Scope::Tree`], no descendant
    /// is left. SIGKILL returns likewise. Other signals return as soon as they are sent.
    ///
    /// # Cancel safety
    /// The signal may have been sent, and a stop that began goes on.
    pub async fn signal(&self, signal: Signal, scope: Scope) -> Result<SignalOutcome, Gone> {
        let _ = (signal, scope);
        todo!()
    }
}
