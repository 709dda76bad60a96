//! What to execute: the concrete program, arguments, environment, directory and extra files of one
//! process. A `Launch` says nothing about isolation; that is the [`Policy`](crate::Policy)'s part.

use serde::{Deserialize, Serialize};

use crate::bounded::at_most;

/// The most strings that arguments or environment may have: the kernel takes 2 MiB of both together (execve(2)), and counts at
/// least a pointer and a NUL for each.
pub const MAX_STRINGS: usize = 2 * 1024 * 1024 / 9;

/// One program to be executed inside a sandbox. Strings must not contain NUL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Absolute path of the program as processes see it, or a bare name that is looked up in the `PATH`
    /// of `env`.
    pub program: String,
    /// The whole argument vector, `argv[0]` included.
    #[serde(deserialize_with = "at_most::<_, _, MAX_STRINGS>")]
    pub argv: Vec<String>,
    /// The complete environment, in order. Nothing else is inherited.
    #[serde(deserialize_with = "at_most::<_, _, MAX_STRINGS>")]
    pub env: Vec<(String, String)>,
    /// Absolute working directory as processes see it.
    pub cwd: String,
    /// Descriptors above 2 that the program finds open.
    #[serde(deserialize_with = "at_most::<_, _, { ExtraFd::MAX as usize }>")]
    pub extra_fds: Vec<ExtraFd>,
}

/// A descriptor the program finds open at a fixed number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraFd {
    /// The number in the program: 3 or higher, below [`ExtraFd::MAX`].
    pub fd: u32,
    /// What it leads to.
    pub kind: ExtraFdKind,
}

impl ExtraFd {
    /// The highest number an extra descriptor may have, exclusive.
    pub const MAX: u32 = 16;
}

/// What an [`ExtraFd`] leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExtraFdKind {
    /// A sealed, read-only file in memory with this content, positioned at its start; also openable as
    /// `/proc/self/fd/N`.
    Content(Vec<u8>),
    /// The write end of a pipe whose read end the service holds (at most one): what the program reports
    /// about itself, such as workerd's `--control-fd`.
    Report,
}

/// How a program's descriptors 0, 1 and 2 are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdio {
    /// Three pipes, or `/dev/null` for stdin.
    Pipes {
        /// Whether stdin is a pipe (`true`) or `/dev/null`.
        stdin: bool,
    },
    /// One pseudo-terminal of the sandbox's own, of this size.
    Pty(WindowSize),
}

/// The size of a terminal in character cells, each at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

impl WindowSize {
    /// The size a terminal has until somebody says otherwise.
    pub const DEFAULT: Self = Self { cols: 80, rows: 24 };
}

/// The limits of one process tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory of the process with all its descendants.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u32,
    /// CPU time per second, in thousandths of a core.
    pub cpu_millis: u32,
}
