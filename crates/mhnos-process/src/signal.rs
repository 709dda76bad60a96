//! Signal numbers that can be sent.

use serde::{Deserialize, Serialize};

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
