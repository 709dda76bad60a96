//! The keeper: starts, holds and ends every user process; restarts the bridge.

pub mod channel;
pub mod log_file;
pub mod socket;
