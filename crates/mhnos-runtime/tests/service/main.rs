//! The built service, driven from outside with the real programs.
//!
//! Each test starts a service of its own: a test that kills its bridge or fills its process table disturbs nobody.

mod bad_input;
mod defects;
mod documentation;
mod life;
mod model;
mod programs;
mod sandbox;
mod upgrade;

use mhnos_testing::{Options, Server};
use rustix::process::Pid;

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

/// The bridge: the keeper's only child that has that word in its command line.
fn bridge(server: &Server) -> Option<Pid> {
    let mut all = server.descendants();
    all.retain(|process| process.command.contains(" bridge ") && process.state != 'Z');
    all.first().and_then(|process| Pid::from_raw(process.os_pid))
}
