//! Policy to enforcement: what walls a process runs behind, one layer per file. The only crate with
//! unsafe code, all of it in [`sys`].

pub mod bounded;
pub mod cgroup;
pub mod closings;
pub mod confine;
pub mod enforcement;
mod enter;
mod error;
mod etc;
mod filter;
pub mod landlock;
pub mod launch;
pub mod listening;
mod maker;
pub mod network;
pub mod policy;
pub mod remedy;
mod selftest;
mod spare_groups;
pub mod stage;
pub mod sys;
mod syscalls;
mod tree;

pub use cgroup::Cgroups;
pub use enforcement::{Enforcement, Layer, Mode, Tier};
pub use enter::{Enclosed, Entered, Walls, enforcement, enter, namespaces};
pub use error::SetupError;
#[cfg(any(test, fuzzing))]
pub use filter::fuzzing;
pub use launch::{ExtraFd, ExtraFdKind, Launch, Limits, Stdio, WindowSize};
pub use maker::maker;
pub use network::Outlet;
pub use policy::Policy;
pub use selftest::Outside;
pub use spare_groups::SpareGroups;
