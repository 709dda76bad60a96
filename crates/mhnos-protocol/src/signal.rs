//! Signal names and numbers, as Linux has them on x86-64 and arm64 (signal(7)). Kept here and not taken
//! from libc so that a client on another system speaks of the same signals.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

/// A signal that can be sent: 1..=31.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Signal(u8);

/// In the order of their numbers, from 1.
const NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// Second names that signal(7) lists.
const ALIASES: [(&str, u8); 4] = [("SIGIOT", 6), ("SIGCLD", 17), ("SIGPOLL", 29), ("SIGUNUSED", 31)];

/// The first real-time signal as the C library counts them (0 and 1 are its own).
const RT_MIN: i32 = 34;

impl Signal {
    /// SIGHUP
    pub const HUP: Self = Self(1);
    /// SIGINT
    pub const INT: Self = Self(2);
    /// SIGKILL
    pub const KILL: Self = Self(9);
    /// SIGTERM
    pub const TERM: Self = Self(15);
    /// SIGCONT
    pub const CONT: Self = Self(18);
    /// SIGSTOP
    pub const STOP: Self = Self(19);

    /// By number, 1..=31.
    pub fn from_number(number: i64) -> Option<Self> {
        u8::try_from(number).ok().filter(|n| (1..=31).contains(n)).map(Self)
    }

    /// By name in any usual spelling: `SIGTERM`, `sigterm`, `TERM`, `15`.
    pub fn from_name(name: &str) -> Option<Self> {
        let upper = name.trim().to_ascii_uppercase();
        if upper.bytes().all(|byte| byte.is_ascii_digit()) {
            return upper.parse().ok().and_then(Self::from_number);
        }
        let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
        let is_it = |known: &str| &known[3..] == bare;
        let by_name = NAMES.iter().position(|known| is_it(known)).map(|index| Self(index as u8 + 1));
        by_name.or_else(|| ALIASES.iter().find(|(known, _)| is_it(known)).map(|(_, number)| Self(*number)))
    }

    /// The kernel's number.
    pub fn number(self) -> i32 {
        i32::from(self.0)
    }

    /// The name with `SIG`.
    pub fn name(self) -> &'static str {
        NAMES[usize::from(self.0) - 1]
    }

    /// The name of any signal number a process can die of, real-time ones included (`SIGRTMIN+3`).
    pub fn name_of(number: i32) -> Cow<'static, str> {
        match Self::from_number(i64::from(number)) {
            Some(signal) => Cow::Borrowed(signal.name()),
            None if number >= RT_MIN => Cow::Owned(format!("SIGRTMIN+{}", number - RT_MIN)),
            None => Cow::Owned(format!("SIG{number}")),
        }
    }
}

impl Serialize for Signal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_spelling_is_understood() {
        for name in ["SIGTERM", "sigterm", "SigTerm", "TERM", "term", "15", " SIGTERM "] {
            assert_eq!(Signal::from_name(name), Some(Signal::TERM), "{name}");
        }
        assert_eq!(Signal::from_name("SIGIOT").map(Signal::name), Some("SIGABRT"));
        for (index, name) in NAMES.iter().enumerate() {
            let signal = Signal::from_number(index as i64 + 1);
            assert_eq!(signal.map(Signal::name), Some(*name));
            assert_eq!(Signal::from_name(name), signal);
        }
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for name in ["", "SIG", "SIGSIGTERM", "SIGFOO", "0", "32", "-1", "15.0", "SIGTERM\0", "é"] {
            assert_eq!(Signal::from_name(name), None, "{name:?}");
        }
        for number in [0, -1, 32, 64, i64::MAX] {
            assert_eq!(Signal::from_number(number), None, "{number}");
        }
    }

    #[test]
    fn real_time_signals_have_names_too() {
        assert_eq!(Signal::name_of(9), "SIGKILL");
        assert_eq!(Signal::name_of(37), "SIGRTMIN+3");
        assert_eq!(Signal::name_of(32), "SIG32");
    }
}
