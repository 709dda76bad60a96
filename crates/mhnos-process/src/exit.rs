//! How a process ended: the record that outlives it, and the public view of its life.

use mhnos_keeper::channel::ExitStatus;
use serde::{Deserialize, Serialize};

use crate::signal::Signal;

/// The end of a process. Set once, after all of its output is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitRecord {
    /// Code or signal, as its parent's `waitpid` saw it.
    pub status: ExitStatus,
    /// Why.
    pub reason: Reason,
    /// From its start to its exit, milliseconds.
    pub runtime_ms: u64,
    /// When it exited, milliseconds since the Unix epoch.
    pub ended_ms: u64,
    /// The log's end when the record was made: all output before it comes before the exit.
    pub end_position: u64,
    /// Resources used.
    pub usage: Usage,
}

/// Resources a process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time, user and system, of the tree where known, else of the program and the children it
    /// waited for; milliseconds.
    pub cpu_ms: u64,
    /// The largest resident set of any one process, bytes.
    pub max_rss: u64,
    /// Output of both streams, bytes.
    pub output_bytes: u64,
}

/// Why a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// By itself, with a code.
    Exited,
    /// By a signal nobody here sent.
    Signaled,
    /// By a client's kill.
    Killed,
    /// By its timeout.
    Timeout,
    /// By its memory limit.
    Memory,
    /// By its process limit.
    Pids,
    /// By the workspace's quota.
    Quota,
    /// By the drain of the service.
    Shutdown,
    /// With its sandbox, before its status could be read.
    Lost,
}

impl Reason {
    /// Every reason, in the order of their declaration.
    pub const ALL: [Self; 9] = [
        Self::Exited,
        Self::Signaled,
        Self::Killed,
        Self::Timeout,
        Self::Memory,
        Self::Pids,
        Self::Quota,
        Self::Shutdown,
        Self::Lost,
    ];

    /// The name used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Signaled => "signaled",
            Self::Killed => "killed",
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Quota => "quota",
            Self::Shutdown => "shutdown",
            Self::Lost => "lost",
        }
    }

    /// Whether it counts as killed in the statistics: ended by a kill, a timeout or a limit.
    pub fn is_kill(self) -> bool {
        matches!(self, Self::Killed | Self::Timeout | Self::Memory | Self::Pids | Self::Quota)
    }
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Running,
    /// It was asked to end, and has not yet.
    Stopping {
        /// What it will be recorded as.
        reason: Reason,
        /// The last signal sent.
        signal: Signal,
    },
    /// It has ended and all its output is in the log. Descendants may linger: see
    /// [`Process::lingers`](crate::Process::lingers).
    Exited(ExitRecord),
}

#[cfg(test)]
mod tests {
    use super::Reason;

    #[test]
    fn all_reasons_stand_at_their_own_index() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason:?}");
        }
    }
}
