//! What the keeper is told at start. It reads no environment and no file of its own.

use std::{os::fd::OwnedFd, time::Duration};

use mhnos_sandbox::{
    Cgroups, Limits, Policy, Tier,
    stage::{Account, Reserve},
};

use crate::{service_manager::ServiceManager, upgrade::ProgramPlace};

/// Everything a keeper needs to run.
pub struct Settings {
    /// What sandboxes shall be. Sources are already reachable for the account this process runs as.
    pub policy: Policy,
    /// The weakest tier to run with.
    pub floor: Tier,
    /// The power to give programs a user of their own, if this process was started with it.
    pub reserve: Option<Reserve>,
    /// Control groups for the limits of a tree, where they are to be had.
    pub cgroups: Option<Cgroups>,
    /// The most one process tree may be given.
    pub limits: Limits,
    /// Bytes of output kept per process.
    pub log_bytes: u64,
    /// How the bridge is started.
    pub bridge: BridgeCommand,
    /// How long a drain may take before the keeper ends what is left.
    pub drain_timeout: Duration,
    /// Who started the service and wants to know how it goes.
    pub service_manager: Option<ServiceManager>,
    /// Called once, when the sandbox stands and the first bridge has said hello.
    pub on_ready: Option<Box<dyn FnOnce()>>,
}

/// How the bridge is started: this same program, with the descriptors it needs from number 3 on: the
/// channel to the keeper, then these in order.
#[derive(Debug)]
pub struct BridgeCommand {
    /// The program, open for execution.
    pub program: OwnedFd,
    /// 0 for the one the service was started with, one more for each upgrade: told as `--program=NUMBER`, so that
    /// whoever looks at the processes sees which one serves.
    pub number: u32,
    /// Where an upgrade finds its program anew.
    pub place: ProgramPlace,
    /// Its arguments, the first being its name. `--channel=VERSION` is added.
    pub argv: Vec<String>,
    /// Its environment, as `NAME=value`.
    pub env: Vec<Vec<u8>>,
    /// The user its files are reached as, where that is not its own: told as `--files-as=UID:GID`.
    pub files_as: Option<Account>,
    /// Descriptors it inherits from number 4 on.
    pub fds: Vec<OwnedFd>,
}

/// The number under which a bridge finds its channel to the keeper.
pub const BRIDGE_CHANNEL_FD: i32 = 3;
