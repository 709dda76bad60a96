//! Policy to enforcement: what walls a process runs behind, one layer per file. The only crate with
//! unsafe code, all of it in [`sys`].

pub mod enforcement;
pub mod launch;
pub mod sys;

pub use enforcement::{Enforcement, Layer, Mode, Tier};
pub use launch::{ExtraFd, ExtraFdKind, Launch, Limits, Stdio, WindowSize};
