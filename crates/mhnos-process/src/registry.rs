//! All processes: admission, numbers, retention, and the end of the service.

use std::{io, os::fd::OwnedFd, sync::Arc};

use mhnos_keeper::channel::{Pid, Welcome};

use crate::{
    process::Process,
    request::{Settings, SpawnError, SpawnRequest},
};

/// All processes of the service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Processes {
    _private: (),
}

/// What moves everything; the server runs it beside its own tasks.
#[derive(Debug)]
pub struct Driver {
    _private: (),
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
    /// The keeper did not answer within [`HELLO_DEADLINE`](crate::limits::HELLO_DEADLINE).
    #[error("the keeper does not answer")]
    Timeout,
}

/// Counters, for `status` and `list`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Programs started since the service began, over all bridges.
    pub total_spawned: u64,
    /// Of those, ended by a kill, a timeout or a limit.
    pub total_killed: u64,
    /// Alive now, lingering ones included.
    pub active: usize,
}

impl Processes {
    /// Says hello to the keeper and adopts what an earlier bridge started. Must be called in a tokio runtime
    /// with I/O and time enabled. The processes move once the [`Driver`] runs.
    pub async fn connect(channel: OwnedFd, settings: Settings) -> Result<(Self, Driver), ConnectError> {
        let _ = (channel, settings);
        todo!()
    }

    /// The keeper's welcome. Its `note` is this crate's own; the server's is
    /// [`Processes::service_note`].
    pub fn welcome(&self) -> &Welcome {
        todo!()
    }

    /// What the server of an earlier bridge left with [`Processes::set_service_note`]; empty at first.
    pub fn service_note(&self) -> Vec<u8> {
        todo!()
    }

    /// Leaves bytes for the server of the next bridge. Returns `false`, and keeps what was there, if they exceed
    /// [`SERVICE_NOTE`](crate::limits::SERVICE_NOTE) or the keeper is gone.
    pub async fn set_service_note(&self, note: Vec<u8>) -> bool {
        let _ = note;
        todo!()
    }

    /// Starts a program. Counted against the limit before anything else happens, so that a burst cannot
    /// pass it.
    ///
    /// # Cancel safety
    /// The program may be started all the same; it is then listed like any other.
    pub async fn spawn(&self, request: SpawnRequest) -> Result<Arc<Process>, SpawnError> {
        let _ = request;
        todo!()
    }

    /// By number: alive or retained. Probes are not found.
    pub fn get(&self, pid: Pid) -> Option<Arc<Process>> {
        let _ = pid;
        todo!()
    }

    /// By ascending number: those alive (lingering ones included) and, if asked for, the retained. No probes.
    pub fn list(&self, include_exited: bool) -> Vec<Arc<Process>> {
        let _ = include_exited;
        todo!()
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// Resolves when the keeper asks for a drain (the service got SIGTERM or SIGINT).
    pub async fn drain_requested(&self) {
        todo!()
    }

    /// Starts nothing new, and stops everything: SIGTERM, the grace period, SIGKILL. Returns when all have
    /// ended, with their exit records set.
    ///
    /// # Cancel safety
    /// What began goes on.
    pub async fn drain(&self) {
        todo!()
    }

    /// Tells the keeper that the drain is over and all clients have been told.
    pub async fn drained(&self) {
        todo!()
    }
}

impl Driver {
    /// Runs until the channel closes. Dropping it stops all process tasks; the programs do not notice.
    pub async fn run(self) -> DriverEnd {
        todo!()
    }
}
