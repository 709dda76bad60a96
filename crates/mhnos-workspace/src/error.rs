//! What can go wrong with a path. Every text names the path as the client gave it and what is the matter.

use std::io;

/// The workspace directory itself cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The path under which processes see the workspace is not absolute, or contains `.`, `..` or NUL.
    #[error("{0:?} cannot be the workspace's path: it must be absolute and plain")]
    VisiblePath(String),
    /// `openat2` does not work here, and nothing else confines paths safely: an old kernel (before 5.6), or a
    /// system call filter that refuses it.
    #[error(
        "openat2 is refused by this system (Linux 5.6 or newer is needed, and a seccomp profile that allows it)"
    )]
    NoOpenat2(#[source] io::Error),
    /// The descriptor does not lead to a directory, or it cannot be read.
    #[error("the workspace directory cannot be opened")]
    Directory(#[source] io::Error),
}

/// A path, or what it leads to, is refused.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// The path is the empty string.
    #[error("the path is empty")]
    Empty,
    /// The path contains a NUL byte, which no file name can.
    #[error("{path:?} contains a NUL byte")]
    Nul {
        /// As the client gave it.
        path: String,
    },
    /// A name in a pushed path is empty, `.` or `..`.
    #[error("{path:?} is not a plain path: {name:?} is not a file name")]
    Name {
        /// As the client gave it.
        path: String,
        /// The offending component.
        name: String,
    },
    /// The path or one of its names is longer than the file system takes.
    #[error("the path is too long: {path:?}")]
    TooLong {
        /// The beginning of what the client gave.
        path: String,
    },
    /// A pushed path has more directories than a pull descends into.
    #[error("nested more than {max} directories deep: {path:?}")]
    TooDeep {
        /// The beginning of what the client gave.
        path: String,
        /// The bound.
        max: usize,
    },
    /// The path leads out of the workspace: by `..`, or through a symbolic link.
    #[error("{path:?} leads out of the workspace")]
    Escapes {
        /// As the client gave it.
        path: String,
    },
    /// Nothing is there.
    #[error("no such file or directory in the workspace: {path:?} (looked for {visible})")]
    Missing {
        /// As the client gave it.
        path: String,
        /// The absolute path that was looked for, as processes see it.
        visible: String,
    },
    /// A directory is needed, and something else is there.
    #[error("not a directory: {path:?}")]
    NotADirectory {
        /// As the client gave it.
        path: String,
    },
    /// A file is needed, and a directory is there.
    #[error("a directory, not a file: {path:?}")]
    IsADirectory {
        /// As the client gave it.
        path: String,
    },
    /// Neither a regular file nor a directory.
    #[error("{path:?} is {what}, not a file")]
    Special {
        /// As the client gave it.
        path: String,
        /// With its article: "a named pipe".
        what: &'static str,
    },
    /// Symbolic links lead round in a circle or nowhere.
    #[error("{path:?} is behind a symbolic link that leads nowhere")]
    Dangling {
        /// As the client gave it.
        path: String,
    },
    /// The file has more bytes than the caller takes.
    #[error("{path:?} has {size} bytes, more than the {max} allowed here")]
    TooLarge {
        /// As the client gave it.
        path: String,
        /// Its size in bytes.
        size: u64,
        /// The bound in bytes.
        max: u64,
    },
    /// With this file the workspace would hold more than it may.
    #[error(
        "{path:?} is not written: the workspace would hold {used} bytes, more than its quota of {limit} \
         (MHNOS_WORKSPACE_QUOTA)"
    )]
    Quota {
        /// As the client gave it.
        path: String,
        /// Bytes there would be.
        used: u64,
        /// Bytes there may be.
        limit: u64,
    },
    /// The system refused, for another reason (permission, disk full, ...).
    #[error("{path:?} cannot be {operation}: {}", reason(source))]
    Io {
        /// As the client gave it.
        path: String,
        /// What was tried: "opened", "written", "created".
        operation: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// A pull cannot be completed.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The files have more bytes than a pull may carry.
    #[error("the workspace has {size} bytes in {files} files, more than the {max} bytes one pull can carry")]
    TooLarge {
        /// Bytes of the files counted.
        size: u64,
        /// How many files.
        files: u64,
        /// The bound.
        max: u64,
    },
    /// More files and directories than a pull looks at.
    #[error("the workspace has more than {max} files and directories, the most one pull looks at")]
    TooMany {
        /// The bound.
        max: u64,
    },
    /// Directories are nested too deeply.
    #[error("the directory that begins with {path:?} is nested more than {max} directories deep")]
    TooDeep {
        /// Relative to the workspace, the beginning of it.
        path: String,
        /// The bound.
        max: usize,
    },
    /// The system refused.
    #[error("{path:?} cannot be read: {}", reason(source))]
    Io {
        /// Relative to the workspace.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// The system's text without Rust's "(os error N)".
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
