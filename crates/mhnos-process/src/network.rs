//! What leads out of sandboxes that have a network of their own, as the keeper hands it over.
//!
//! This crate only passes it on: who serves these sockets watches which networks there are
//! ([`Processes::networks`](crate::Processes::networks)). A state and no queue, so that it is as large as what
//! it tells of, and nothing is missed by being slow.

use std::{collections::BTreeMap, os::fd::OwnedFd, sync::Arc};

use mhnos_keeper::channel::Pid;
use mhnos_sandbox::Outlet;

/// The network of one sandbox.
#[derive(Debug)]
pub struct Network {
    /// Whose sandbox it is, if it is a private one.
    pub process: Option<Pid>,
    /// Sockets that listen inside it, non-blocking. All duplicates must be closed once the network is no longer
    /// told: they would keep it from going away.
    pub outlets: Vec<(Outlet, OwnedFd)>,
}

/// The networks there are, by the keeper's number for the sandbox. Numbers come back with another network.
pub type Networks = BTreeMap<u32, Arc<Network>>;
