//! Every bound of this crate.

/// The longest path accepted, in bytes: the kernel's own `PATH_MAX` less its final NUL.
pub const PATH_BYTES: usize = 4095;

/// How often an `openat2` that the kernel could not decide is repeated: it answers `EAGAIN` when a rename
/// anywhere in the system raced with a `..` in the path (openat2(2)).
pub const UNDECIDED_TRIES: u32 = 128;

/// How often another name is tried for a temporary file; the names are random, so one nearly always does.
pub const TEMPORARY_NAME_TRIES: u32 = 8;

/// Content of one pull, in bytes, unless set otherwise. As an array of numbers in JSON this becomes up to
/// four times as much, which is what a browser still takes in one message.
pub const PULL_BYTES: u64 = 32 * 1024 * 1024;

/// Files and directories looked at by one pull, unless set otherwise. Bounds the time of the walk and the
/// memory for the names of directories.
pub const PULL_ENTRIES: u64 = 100_000;

/// Directories inside each other that a push makes and a pull descends into; each level of a pull holds one descriptor.
pub const DEPTH: usize = 64;

/// Directories inside each other that are counted for a quota; each level holds one descriptor.
pub const USAGE_DEPTH: usize = 200;

/// Files with several names that a count for a quota remembers; each more is counted by every name, so that nothing escapes.
pub const USAGE_LINKED: usize = 1_000_000;

/// Characters of a path that is too long, or of a directory too deep, which its error shows.
pub const SHOWN_CHARACTERS: usize = 80;
