//! What the end-to-end tests stand on; never shipped.
//!
//! A test drives the built binary from outside, as a user would: `Server` starts it on a free port with an empty
//! environment and a workspace of its own, `Wire` speaks the protocol to it in plain JSON (not through our own client, so
//! that one mistake in a shared type cannot hide on both sides), and `mhnos-probe` runs inside the sandbox and reports
//! what it could and could not do. What a test needs of the machine is never skipped silently: a missing tool fails the
//! test with the command that installs it, and what is left out all the same is told and counted (`waive`).
//!
//! Nothing here sleeps to synchronise. What can only be observed from outside is polled with a deadline (`eventually`).

#![allow(clippy::disallowed_methods)] // starts the binary under test, and reads where the tools are

mod alone;
mod browser;
pub mod doc_examples;
mod eventually;
mod exposition;
pub mod host;
mod http;
mod leftovers;
mod probe;
mod replay;
mod scratch;
mod server;
mod tools;
pub mod waived;
mod wire;

pub use alone::alone;
pub use browser::{Browser, Key, Site, Tab};
pub use eventually::{eventually, eventually_async};
pub use exposition::Exposition;
pub use http::{HttpReply, http_get, http_raw};
pub use leftovers::{Survivor, alive, descendants, survivors};
pub use probe::{Attempt, Probe};
pub use replay::replay;
pub use scratch::Scratch;
pub use server::{Options, Server, StartFailure};
pub use tools::{tool, tools_dir, tools_path, tools_path_with_node};
pub use waived::waive;
pub use wire::{Wire, WireOptions};
