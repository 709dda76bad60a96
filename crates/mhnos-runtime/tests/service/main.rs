//! The built service, driven from outside with the real programs.
//!
//! Each test starts a service of its own: a test that kills its bridge or fills its process table disturbs nobody.

#![allow(clippy::disallowed_methods, reason = "the tests start programs, and read how long they shall be")]

mod abuse;
mod audit;
mod bad_clients;
mod bad_http;
mod bad_input;
mod bad_messages;
mod bombs;
mod bridge_killed;
mod bursts;
mod bystander;
mod compatibility;
mod compatibility_packages;
mod conformance;
mod control_groups;
mod cpu;
mod defects;
mod disk;
mod doctor;
mod documentation;
mod egress;
mod few_files;
mod floods;
mod health;
mod heartbeat;
mod hostile;
mod ipc;
mod large_messages;
mod life;
mod limits;
mod metrics;
mod model;
mod neighbour;
mod orphans;
mod previews;
mod programs;
mod random_kills;
mod requests;
mod sandbox;
mod service_manager;
mod soak;
mod supervisors;
mod terminals_and_pipes;
mod tiers;
mod tls;
mod tokens;
mod upgrade;
mod viewers;

use mhnos_testing::{Options, Server};

const SERVICE: &str = env!("CARGO_BIN_EXE_mhnos-runtime");

/// A service with the defaults of the tests.
#[track_caller]
fn start() -> Server {
    Server::start(options())
}

#[track_caller]
fn options() -> Options {
    Options::new(SERVICE)
}
