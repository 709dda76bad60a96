//! What keeper, init and supervisor say to each other. Same framing as [`channel`](crate::channel); these
//! three are one program, so the types are private to the crate.

use std::io;

use mhnos_sandbox::{Launch, Limits, Outlet, Outside, SetupError, Stdio, bounded::at_most};
use serde::{Deserialize, Serialize};

use crate::channel::{Exit, Failure, MAX_MEMBERS, MAX_PORTS, Member, Port, Scope, Stage, Usage};

/// Keeper to init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToInit {
    /// Fork a supervisor, and it the process of a program to come. Attached are the supervisor's end of its
    /// channel to the keeper, that process's end of its own, and the doors of the program's control group.
    Supervise,
}

/// What is started.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Payload {
    /// A program; contents of extra descriptors have become files.
    Program(Launch),
    /// In the place of a program: attempts to get out. Exits with 0 if all of them fail.
    SelfTest(Outside),
}

/// Keeper to the process that will be a program: become it. The attached descriptors are the program's, in the order of
/// `slots`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Execute {
    /// What.
    pub(crate) payload: Payload,
    /// How it is connected.
    pub(crate) stdio: Stdio,
    /// Its limits.
    pub(crate) limits: Limits,
    /// Processes the whole sandbox may have.
    pub(crate) nproc: u64,
    /// Which number each attached descriptor has for the program.
    pub(crate) slots: Vec<u32>,
}

/// Init to keeper.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromInit {
    /// The walls stand. What leads out of the sandbox's own network is attached, in this order.
    Ready(Vec<Outlet>),
    /// They could not be put up; init ends.
    SetupFailed(Failure),
}

/// Keeper to supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToSupervisor {
    /// Hold the tree to these: for a program without a control group, and before its order.
    Limit(Limits),
    /// Send a signal.
    Signal {
        /// Kernel's number.
        signal: i32,
        /// How far.
        scope: Scope,
        /// The program has a terminal, which is hung up when its tree is told to end.
        terminal: bool,
    },
    /// Tell who lives.
    Members,
    /// Nothing of its program is left: get ready for another one. Its process's end of the channel to the keeper is
    /// attached, and the doors of its control group, or it is the same group.
    Renew,
    /// Connect to what the tree listens on.
    Dial {
        /// Told back.
        token: u32,
        /// Where.
        port: u16,
    },
}

/// Supervisor to keeper.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromSupervisor {
    /// It could not make the process of a program; it ends.
    Failed(Failure),
    /// The program has ended.
    Exited(Exit),
    /// Nothing of its tree is left; the supervisor waits for `Renew`, or the end of its channel.
    Ended(Usage),
    /// Who lives, some of them if they are many.
    Members(#[serde(deserialize_with = "at_most::<_, _, MAX_MEMBERS>")] Vec<Member>),
    /// The ports the tree listens on from now on.
    Ports(#[serde(deserialize_with = "at_most::<_, _, MAX_PORTS>")] Vec<Port>),
    /// Answer to a `Dial`: a connection is attached, or there is this error number.
    Dialed {
        /// As asked.
        token: u32,
        /// 0 if a connection is attached.
        errno: i32,
    },
}

/// A program's process, before it is a program, to the keeper. The channel closes at exec.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromRecruit {
    /// All is done that needs no order.
    Ready {
        /// The sandbox's pid of it.
        os_pid: i32,
    },
    /// The master of its terminal is attached.
    Terminal,
    /// It could not become the program; it ends.
    Failed(Failure),
}

/// A failure of our own code's step, for people.
pub(crate) fn failure(stage: Stage, error: &SetupError) -> Failure {
    Failure { stage, errno: error.errno(), detail: error.to_string() }
}

/// A failure of a call, for people.
pub(crate) fn call_failure(stage: Stage, detail: &str, error: &io::Error) -> Failure {
    Failure { stage, errno: error.raw_os_error().unwrap_or(0), detail: detail.to_owned() }
}
