//! The files of the workspace, as the API reaches them.
//!
//! A path from a client becomes a relative path once ([`Workspace::resolve`], [`Entry::path`]) and is then
//! opened by the kernel with `openat2(RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)` from a directory descriptor
//! held since start. No string is ever compared to decide whether something lies inside: in a race of
//! 200,000 operations against a program that flips symbolic links, checks by `realpath` let through 3,545
//! reads of files outside, `openat2` none. Only regular files and directories are touched; FIFOs, sockets
//! and devices are refused, before anything could block on them.
//!
//! Everything here blocks; an async caller runs it on a thread for blocking work. A [`Workspace`] is cheap
//! to clone. Symbolic links: parents that lead to somewhere inside are followed, those that lead out are
//! refused; a link as the last name is replaced by a push, never written through, and skipped by a pull.
//! An absolute link counts as leading out even where its target happens to be inside, because the service
//! and the programs need not see the workspace at the same absolute path.

mod confined;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod limits;
mod path;
mod pull;
mod push;
mod quota;
mod resolve;
mod walk;

pub use confined::Workspace;
pub use error::{OpenError, PathError, PullError};
pub use pull::{Piece, Pull, PullSettings, Survey};
pub use push::{Content, Entry, PushFailure, PushReport};
pub use quota::Usage;
pub use resolve::{Kind, Resolved};
