//! The output log of one process.

/// Which of a process's output streams. A terminal has [`Stream::Stdout`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Descriptor 1, or the terminal.
    Stdout,
    /// Descriptor 2.
    Stderr,
}
