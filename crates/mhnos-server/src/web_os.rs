//! What exists only for the unmodified Web OS page, whose code cannot be changed.
//!
//! It is told apart by what it does not say: it asks for no subprotocol, and being a page it sends an Origin.
//! Facts about it, observed frame by frame, and where they are served:
//!
//! * It resolves a request only by a message of a type it knows (`spawned`, `attached`, `killed`,
//!   `processList`, `status`, `error`, whichever comes with the id), and has no handler for `pong`,
//!   `fsyncResult` and `detached`: its ping and fsync would time out after 30 s. So it gets a second message
//!   with the same id and fields as `status` ([`twin`]). It ignores the first.
//! * Of a push it only sees whether it was resolved or rejected: files that could not be written must be
//!   told as `error`, which fails the batch ([`twin`]).
//! * It drops output of a process until it attaches, and forgets a process on its `exit`: a short program
//!   could never be read. The exit is held back until the attach, at most [`EXIT_HOLD`], or until a kill is
//!   answered (`connection::view`).
//! * It draws every output message as a line of its own: small output is gathered for a moment
//!   ([`WEB_OS_GATHER`], `connection::writer`).
//! * It sends `detach` when a window closes and still needs the `exit`, or the process stays in its table
//!   for ever (`connection::requests`).
//! * Its terminal window sends Enter as `\r` also to programs on pipes, which wait for `\n`, and Ctrl-C as
//!   the byte 3 ([`translate_input`]).
//!
//! [`EXIT_HOLD`]: crate::limits::EXIT_HOLD
//! [`WEB_OS_GATHER`]: crate::limits::WEB_OS_GATHER

use mhnos_protocol::{ErrorCode, ErrorReply, Reply};
use mhnos_sandbox::Stdio;
use serde_json::value::RawValue;

/// Waiting output of this many bytes is worth a message at once.
pub(crate) const GATHER_BYTES: u64 = 16 * 1024;

/// The second message for a reply of a type the page has no handler for.
pub(crate) fn twin(reply: &Reply, id: Option<&RawValue>) -> Option<String> {
    let id = Some(id?);
    match reply {
        Reply::Pushed(results) if results.failed > 0 => {
            let first = results.errors.first().map(|error| format!("{}: {}", error.path, error.error));
            let more = match results.failed {
                1 => String::new(),
                failed => format!(" (and {} more)", failed - 1),
            };
            let text = format!("not written: {}{more}", first.unwrap_or_default());
            Some(Reply::Error(ErrorReply::new(ErrorCode::FileFailed, text)).to_json(id))
        }
        Reply::Pong { .. } | Reply::Pushed(_) | Reply::Detached(_) => Some(reply.to_json_as("status", id)),
        _ => None,
    }
}

/// Makes what the page's terminal sends fit for a program that has none.
pub(crate) fn translate_input(data: &mut [u8], stdio: Stdio) {
    if let Stdio::Pipes { .. } = stdio {
        data.iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b'\n');
    }
}
