//! What a sandbox shall be: the operator's wishes, with every path resolved. Built once, at start, by the
//! keeper; no client and no bridge can change it.

use std::path::PathBuf;

use crate::{Mode, filter, sys::Instruction, syscalls};

/// The walls and the furniture of a sandbox.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What the operator asked for.
    pub mode: Mode,
    /// The one writable directory that is the user's.
    pub workspace: Workspace,
    /// Host directories that programs need, read-only, at the same path inside.
    pub read_only: Vec<Source>,
    /// The uid and gid programs run as, inside and outside alike.
    pub uid: u32,
    /// See `uid`.
    pub gid: u32,
    /// The system call filter of programs; empty for none.
    pub filter: Vec<Instruction>,
}

/// The filter for programs in this mode.
pub fn filter_for(mode: Mode) -> Vec<Instruction> {
    match mode {
        Mode::None => Vec::new(),
        Mode::Strict | Mode::Relaxed => filter::compile(&syscalls::rules(mode)),
    }
}

/// The workspace as the keeper found it at start.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Where it is now and where it shows inside.
    pub source: Source,
    /// Device and inode at start. A directory that has been swapped since is not bound.
    pub identity: (u64, u64),
}

/// A directory or file of the host and its place inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where the keeper reaches it: the host's path, or its place on the staging tree.
    pub outside: PathBuf,
    /// Absolute path inside the sandbox.
    pub inside: PathBuf,
}

/// The name of the account programs see themselves as.
pub const USER: &str = "mhnos";

/// The name of the machine programs see.
pub const HOST_NAME: &str = "mhnos";

/// Where the workspace can always be found, whatever its own path.
pub const WORKSPACE_ALIAS: &str = "/workspace";

/// Size of a sandbox's `/tmp`, in bytes.
pub const TMP_BYTES: u64 = 256 << 20;

/// Files and directories in a sandbox's `/tmp`.
pub const TMP_INODES: u64 = 65_536;

/// Size of a sandbox's `/dev/shm`, in bytes.
pub const SHM_BYTES: u64 = 64 << 20;
