//! Recipes: how a process type and a request become a concrete [`Launch`](mhnos_sandbox::Launch).
//!
//! Pure: nothing here starts, opens or looks up anything. What exists on this machine comes in as a
//! [`Toolbox`] (found once, at start), the settings as a [`Context`], a script's path already resolved in the
//! workspace ([`Command::Path`]), and the text of a worker's modules through [`Sources`]. So every rule about
//! how `node`, `python`, `shell`, `workerd` and `openclaw` start can be checked as input against output.
//!
//! Which interpreter runs is decided here, by absolute path; a client's `PATH` only changes what the
//! program finds. Nothing of the service's own environment is passed on but the few variables named in
//! [`ServiceEnvironment`].

mod environment;
mod error;
pub mod limits;
mod node;
mod openclaw;
mod process_type;
mod python;
mod recipe;
mod report;
mod shell;
mod tool;
mod toolbox;
mod version;
mod workerd;

#[cfg(any(test, fuzzing))]
pub use workerd::fuzzing;

pub use environment::ServiceEnvironment;
pub use error::RecipeError;
pub use process_type::{CommandRole, ProcessType};
pub use recipe::{Command, Context, Proxy, Pty, Recipe, ReportKind, Sources, SpawnInput, recipe};
pub use report::{Listening, parse_report};
pub use tool::Tool;
pub use toolbox::{Finding, Toolbox};
pub use version::Version;
