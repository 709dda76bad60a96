//! The life of a process, as a pure function: `(state, now, event) -> (state, effects)`.
//!
//! Three things go on side by side, and the exit record is where they meet:
//!
//! ```text
//! program   Running ──Exited──> Exited ──(1)──> Recorded        (1) output ended and tree ended
//! output    Open ───OutputEnded───────────────> Ended               or output ended, TREE_SETTLE passed
//! tree      Alive ──Ended─────────────────────> Ended               or caught up, OUTPUT_DRAIN passed
//!
//! stop      None ──Ask──> Asked ──grace──> Killing ──KILL_REPEAT──> Killing ...
//!             └──Ask(KILL)────────────────^          until the program (or the tree) is reaped
//! ```
//!
//! What ended is only ever what the keeper's `waitpid` saw; that a signal was sent proves nothing. Time is
//! the monotonic clock in milliseconds, so that deadlines hold for the next bridge too. Nothing but the
//! process's task changes this state, and it does nothing but perform the effects.

use mhnos_keeper::channel::{Exit, ExitStatus, LimitHit, Scope, Usage};
use serde::{Deserialize, Serialize};

use crate::{
    exit::Reason,
    limits::{KILL_REPEAT, OUTPUT_DRAIN, TREE_SETTLE},
    signal::Signal,
};

/// The monotonic clock, milliseconds.
pub(crate) type Millis = u64;

/// The state of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    program: Program,
    output: Output,
    tree: Tree,
    /// An earlier bridge has made the record, and told it.
    told: bool,
    pub(crate) memory: Memory,
}

/// The part of the state that a new bridge cannot learn from the keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// Between the first signal of a stop and SIGKILL, milliseconds.
    pub(crate) grace: Millis,
    /// When the process is to be stopped.
    pub(crate) timeout_at: Option<Millis>,
    /// The stop that is going on.
    pub(crate) stop: Stop,
    /// Why the first stop was asked for, if one was before the program's exit.
    pub(crate) cause: Option<Cause>,
    /// The signals clients have sent besides until then, a bit each: one of them may end the program.
    pub(crate) sent: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Running,
    Exited { exit: Exit, drain_until: Millis, caught_up: bool, settle_until: Option<Millis> },
    Recorded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Open,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tree {
    Alive,
    Ended(Usage),
}

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stop {
    /// None is going on.
    None,
    /// The signal was sent.
    Asked { signal: Signal, scope: Scope, kill_at: Millis },
    /// SIGKILL was sent.
    Killing { scope: Scope, repeat_at: Millis },
}

/// Who asked for a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cause {
    Client,
    Timeout,
    Drain,
    Quota,
}

impl Cause {
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::Client => Reason::Killed,
            Self::Timeout => Reason::Timeout,
            Self::Drain => Reason::Shutdown,
            Self::Quota => Reason::Quota,
        }
    }
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A stop is asked for, by a signal that [stops](Signal::stops).
    Ask { signal: Signal, scope: Scope, cause: Cause },
    /// Another signal is to be sent.
    Send { signal: Signal, scope: Scope },
    /// The program has ended.
    Exited(Exit),
    /// No process of the tree is left.
    Ended(Usage),
    /// Everything the program wrote before its exit is in the log.
    CaughtUp,
    /// Nothing more can be written.
    OutputEnded,
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// Have the keeper send this.
    pub(crate) signal: Option<(Signal, Scope)>,
    /// Make the exit record.
    pub(crate) record: Option<Verdict>,
    /// Memory has changed: store it for the next bridge.
    pub(crate) remember: bool,
}

/// What the exit record says, as far as it is decided here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) exit: Exit,
    pub(crate) reason: Reason,
    pub(crate) usage: Usage,
}

impl Memory {
    pub(crate) fn new(grace: Millis, timeout_at: Option<Millis>) -> Self {
        Self { grace, timeout_at, stop: Stop::None, cause: None, sent: 0 }
    }
}

impl Machine {
    /// A process that runs, as far as is known.
    pub(crate) fn new(memory: Memory) -> Self {
        Self { program: Program::Running, output: Output::Open, tree: Tree::Alive, told: false, memory }
    }

    /// The same; an earlier bridge may have told of its exit, for which the output is not waited again.
    pub(crate) fn adopted(memory: Memory, told: bool) -> Self {
        Self { told, ..Self::new(memory) }
    }

    /// The transition function.
    pub(crate) fn step(mut self, now: Millis, event: Event) -> (Self, Effects) {
        let before = self.memory;
        let mut effects = Effects::default();
        match event {
            Event::Ask { signal, scope, cause } => effects.signal = self.ask(now, signal, scope, cause),
            Event::Send { signal, scope } => {
                if self.reachable(scope) {
                    if self.program == Program::Running {
                        self.memory.sent |= signal.bit();
                    }
                    effects.signal = Some((signal, scope));
                }
            }
            Event::Exited(exit) => self.exited(now, exit),
            Event::Ended(usage) => {
                self.tree = Tree::Ended(usage);
                self.memory.stop = Stop::None;
            }
            Event::CaughtUp => {
                if let Program::Exited { caught_up, .. } = &mut self.program {
                    *caught_up = true;
                }
            }
            Event::OutputEnded => {
                self.output = Output::Ended;
                self.settle(now);
            }
            Event::Tick => effects.signal = self.tick(now),
        }
        effects.record = self.record(now);
        effects.remember = self.memory != before;
        (self, effects)
    }

    /// When the next [`Event::Tick`] has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Millis> {
        let stop = match self.memory.stop {
            Stop::None => None,
            Stop::Asked { kill_at, .. } => Some(kill_at),
            Stop::Killing { repeat_at, .. } => Some(repeat_at),
        };
        let program = match self.program {
            Program::Running => self.memory.timeout_at,
            Program::Exited { settle_until: Some(until), .. } => Some(until),
            Program::Exited { drain_until, caught_up: true, .. } => Some(drain_until),
            Program::Exited { .. } | Program::Recorded => None,
        };
        stop.into_iter().chain(program).min()
    }

    /// The program has ended; its record may still be waiting for output.
    pub(crate) fn program_ended(&self) -> bool {
        self.program != Program::Running
    }

    /// The record waits for [`Event::CaughtUp`], among other things.
    pub(crate) fn awaits_output(&self) -> bool {
        matches!(self.program, Program::Exited { caught_up: false, .. })
    }

    /// No process of the tree is left.
    pub(crate) fn tree_ended(&self) -> bool {
        self.tree != Tree::Alive
    }

    /// The record is made, and no process of the tree is left.
    pub(crate) fn is_over(&self) -> bool {
        self.program == Program::Recorded && self.tree_ended()
    }

    /// Nothing can happen any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_over() && self.output == Output::Ended
    }

    /// The stop going on, as clients see it: why, and the last signal.
    pub(crate) fn stopping(&self) -> Option<(Reason, Signal)> {
        let signal = match self.memory.stop {
            Stop::None => return None,
            Stop::Asked { signal, .. } => signal,
            Stop::Killing { .. } => Signal::KILL,
        };
        self.memory.cause.map(|cause| (cause.reason(), signal))
    }

    /// Whether anything of that scope may still be there.
    pub(crate) fn reachable(&self, scope: Scope) -> bool {
        self.tree == Tree::Alive && (scope == Scope::Tree || self.program == Program::Running)
    }

    fn ask(&mut self, now: Millis, signal: Signal, scope: Scope, cause: Cause) -> Option<(Signal, Scope)> {
        if !self.reachable(scope) {
            return None;
        }
        // Of what has ended already it is no cause.
        if self.program == Program::Running {
            self.memory.cause.get_or_insert(cause);
        }
        let deadline = now.saturating_add(self.memory.grace);
        let repeat = now + KILL_REPEAT.as_millis() as Millis;
        // Whatever comes later, nothing that was promised to a wider scope is put off.
        let (stop, send) = match (self.memory.stop, signal == Signal::KILL) {
            (Stop::None, false) => (Stop::Asked { signal, scope, kill_at: deadline }, signal),
            (Stop::None, true) => (Stop::Killing { scope, repeat_at: repeat }, signal),
            (Stop::Asked { scope: before, kill_at, .. }, false) => {
                (Stop::Asked { signal, scope: wider(before, scope), kill_at: kill_at.min(deadline) }, signal)
            }
            (Stop::Asked { scope: before, kill_at: at, .. }, true)
            | (Stop::Killing { scope: before, repeat_at: at }, _) => {
                (Stop::Killing { scope: wider(before, scope), repeat_at: at.min(repeat) }, Signal::KILL)
            }
        };
        self.memory.stop = stop;
        Some((send, scope))
    }

    fn tick(&mut self, now: Millis) -> Option<(Signal, Scope)> {
        let due = |at: Millis| at <= now;
        if self.program == Program::Running && self.memory.timeout_at.is_some_and(due) {
            self.memory.timeout_at = None;
            if self.memory.stop == Stop::None {
                return self.ask(now, Signal::TERM, Scope::Tree, Cause::Timeout);
            }
        }
        match self.memory.stop {
            Stop::Asked { scope, kill_at: at, .. } | Stop::Killing { scope, repeat_at: at } if due(at) => {
                let repeat_at = now + KILL_REPEAT.as_millis() as Millis;
                self.memory.stop = Stop::Killing { scope, repeat_at };
                Some((Signal::KILL, scope))
            }
            _ => None,
        }
    }

    fn exited(&mut self, now: Millis, exit: Exit) {
        if self.program != Program::Running {
            return;
        }
        let drain_until = now + OUTPUT_DRAIN.as_millis() as Millis;
        self.program = Program::Exited { exit, drain_until, caught_up: false, settle_until: None };
        if let Stop::Asked { scope: Scope::Leader, .. } | Stop::Killing { scope: Scope::Leader, .. } =
            self.memory.stop
        {
            self.memory.stop = Stop::None;
        }
        self.settle(now);
    }

    /// Exit and end of output are known: only the tree may keep the record waiting, and not for long.
    fn settle(&mut self, now: Millis) {
        if let Program::Exited { settle_until, .. } = &mut self.program
            && self.output == Output::Ended
        {
            settle_until.get_or_insert(now + TREE_SETTLE.as_millis() as Millis);
        }
    }

    fn record(&mut self, now: Millis) -> Option<Verdict> {
        let Program::Exited { exit, drain_until, caught_up, settle_until } = self.program else {
            return None;
        };
        let settled = settle_until.is_some_and(|until| self.tree != Tree::Alive || until <= now);
        let drained = caught_up && drain_until <= now;
        if !settled && !drained && !self.told {
            return None;
        }
        self.program = Program::Recorded;
        let usage = match self.tree {
            Tree::Ended(usage) => usage,
            Tree::Alive => exit.usage,
        };
        Some(Verdict { exit, reason: self.reason(&exit), usage })
    }

    fn reason(&self, exit: &Exit) -> Reason {
        let by_client =
            |signal| Signal::from_number(signal).is_some_and(|one| self.memory.sent & one.bit() != 0);
        match (exit.status, exit.limit, self.memory.cause) {
            (ExitStatus::Lost, ..) => Reason::Lost,
            (_, Some(LimitHit::Memory), _) => Reason::Memory,
            // Where a fork is refused, that may have been long ago, and nothing came of it.
            (_, _, Some(cause)) => cause.reason(),
            (ExitStatus::Signal(signal), _, None) if by_client(signal) => Reason::Killed,
            (_, Some(LimitHit::Pids), None) => Reason::Pids,
            (ExitStatus::Code(_), None, None) => Reason::Exited,
            (ExitStatus::Signal(_), None, None) => Reason::Signaled,
        }
    }
}

fn wider(a: Scope, b: Scope) -> Scope {
    if a == Scope::Tree { a } else { b }
}

#[cfg(test)]
mod tests;
