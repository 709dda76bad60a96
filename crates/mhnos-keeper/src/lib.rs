//! The keeper: starts, holds and ends every user process, and restarts the bridge.
//!
//! Three kinds of our own processes share this crate. The [`keeper`](run) is one thread that reads nothing
//! from the network. An `init` is the first process of each sandbox. A `supervisor` is the parent of one
//! program. They and the bridge speak typed messages over `SOCK_SEQPACKET` ([`socket`]); [`channel`] is what
//! the bridge sees.

mod bridge;
pub mod channel;
pub mod choose;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod heap;
mod held;
mod init;
mod inner;
mod keeper;
pub mod limits;
pub mod log_file;
mod outbox;
mod ports;
mod recruit;
mod sandboxes;
mod service_manager;
mod settings;
pub mod socket;
mod spares;
mod supervisor;
mod tree;
mod upgrade;
mod watchdog;

pub use keeper::{KeeperError, run};
pub use service_manager::ServiceManager;
pub use settings::{BRIDGE_CHANNEL_FD, BridgeCommand, Settings};
pub use upgrade::ProgramPlace;
