//! Signals: their numbers, and how one is sent to a process.

use std::time::Duration;

use mhnos_keeper::channel::Scope;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::{
    limits::KILL_PATIENCE,
    process::{Gone, Process},
};

/// A signal number, 1..=64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Signal(u8);

impl Signal {
    /// SIGHUP
    pub const HUP: Self = Self(1);
    /// SIGINT
    pub const INT: Self = Self(2);
    /// SIGKILL
    pub const KILL: Self = Self(9);
    /// SIGTERM
    pub const TERM: Self = Self(15);

    /// By the kernel's number.
    pub fn from_number(number: i32) -> Option<Self> {
        u8::try_from(number).ok().filter(|n| (1..=64).contains(n)).map(Self)
    }

    /// The kernel's number.
    pub fn number(self) -> i32 {
        i32::from(self.0)
    }

    /// Whether it asks a process to end, so that SIGKILL follows after the grace period.
    pub fn stops(self) -> bool {
        matches!(self, Self::HUP | Self::INT | Self::TERM | Self::KILL)
    }

    /// Its bit in a set of signals.
    pub(crate) fn bit(self) -> u64 {
        1 << (self.0 - 1)
    }
}

/// No signal has this number.
#[derive(Debug, thiserror::Error)]
#[error("{0} is no signal number")]
pub struct NoSignal(u8);

impl TryFrom<u8> for Signal {
    type Error = NoSignal;

    fn try_from(number: u8) -> Result<Self, NoSignal> {
        Self::from_number(i32::from(number)).ok_or(NoSignal(number))
    }
}

impl From<Signal> for u8 {
    fn from(signal: Signal) -> Self {
        signal.0
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

/// A client's signal, on its way to the process's task.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) signal: Signal,
    pub(crate) scope: Scope,
    /// Whether it begins a stop, or is only sent.
    pub(crate) stop: bool,
    /// Answered when it is sent, or there is nobody to send it to.
    pub(crate) sent: oneshot::Sender<Result<(), Gone>>,
}

impl Process {
    /// Sends a signal. SIGTERM, SIGINT and SIGHUP begin a stop: SIGKILL follows to the same scope after the
    /// grace period, and this returns when the exit record is set and, for [`Scope::Tree`], no descendant
    /// is left. SIGKILL returns likewise, and both if there was nobody to send it to. Other signals return as soon as they are sent.
    ///
    /// # Cancel safety
    /// The signal may have been sent, and a stop that began goes on.
    pub async fn signal(&self, signal: Signal, scope: Scope) -> Result<SignalOutcome, Gone> {
        let stop = signal.stops();
        if let Err(gone) = self.send(signal, scope, stop).await {
            if stop {
                // The record of what has ended may still be waiting for output.
                _ = tokio::time::timeout(KILL_PATIENCE, self.exited()).await;
            }
            return Err(gone);
        }
        if !stop {
            return Ok(SignalOutcome::Delivered);
        }
        let patience =
            KILL_PATIENCE.saturating_add(if signal == Signal::KILL { Duration::ZERO } else { self.grace });
        match tokio::time::timeout(patience, self.until(|view| view.ended(scope))).await {
            Ok(Ok(())) => Ok(SignalOutcome::Ended),
            Ok(Err(gone)) => Err(gone),
            Err(_) => Ok(SignalOutcome::Survives),
        }
    }

    /// Sends SIGINT to the whole tree as Ctrl-C on a terminal does: it begins no stop, so a program that
    /// handles it goes on. Returns as soon as it is sent.
    ///
    /// # Cancel safety
    /// The signal may have been sent.
    pub async fn interrupt(&self) -> Result<(), Gone> {
        self.send(Signal::INT, Scope::Tree, false).await
    }

    async fn send(&self, signal: Signal, scope: Scope, stop: bool) -> Result<(), Gone> {
        let (sent, answer) = oneshot::channel();
        self.commands.send(Command { signal, scope, stop, sent }).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)?
    }
}
