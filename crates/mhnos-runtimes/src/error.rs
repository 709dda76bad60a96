//! Why a request cannot become a launch. Each text is for the person who asked.

use crate::{ProcessType, Tool};

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecipeError {
    /// The type needs a `command` and there is none.
    #[error("{} needs a command: {needed}", .process_type.name())]
    CommandMissing {
        /// The type asked for.
        process_type: ProcessType,
        /// What the command should be.
        needed: &'static str,
    },
    /// A program that the type needs is missing, too old, or does not run.
    #[error("{text}")]
    ToolUnavailable {
        /// Which.
        tool: Tool,
        /// What is the matter, and the command that installs it.
        text: String,
    },
    /// OpenClaw was asked for and is not allowed.
    #[error("OpenClaw is not enabled in this runtime (MHNOS_ALLOW_OPENCLAW=true enables it)")]
    OpenClawDisabled,
    /// A string contains a NUL byte, which no argument or variable can.
    #[error("{what} contains a NUL byte")]
    Nul {
        /// `args[2]`, `env FOO`, `command`.
        what: String,
    },
    /// A variable's name is empty or contains `=`.
    #[error("{name:?} cannot be the name of an environment variable")]
    VariableName {
        /// As given.
        name: String,
    },
    /// `stdin: "null"` together with a terminal.
    #[error("stdin \"null\" and a terminal exclude each other (pty: false gives pipes)")]
    StdinOfTerminal,
    /// An argument that a generated worker does not take, or with a bad value.
    #[error("workerd: {text}")]
    WorkerArgument {
        /// Which, and what is accepted.
        text: String,
    },
    /// A worker's source cannot be used: unknown kind of file, syntax error, missing import, too large.
    #[error("{path}: {text}")]
    WorkerSource {
        /// The module, relative to the workspace where it lies there.
        path: String,
        /// What is wrong, with line and column for a syntax error.
        text: String,
    },
}
