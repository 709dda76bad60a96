//! What exists only for the unmodified Web OS page, whose code cannot be changed.
//!
//! It is told apart by what it does not say: it asks for no subprotocol, and being a page it sends an Origin
//! (`connection::Dialect`). docs/web-os.md has the whole list of what it expects, point by point, with the
//! test that shows each. Most of it is the protocol itself; this is what is not, by the same numbers, and
//! where it is served:
//!
//! * 7: It gives up on a request after 30 s. A kill with a longer grace period is answered before that
//!   ([`in_time`]).
//! * 8: It resolves a request only by a message of a type it knows (`spawned`, `attached`, `killed`,
//!   `processList`, `status`, `error`, whichever comes with the id), and has no handler for `pong`,
//!   `fsyncResult` and `detached`: its ping and fsync would time out after 30 s. So it gets a second message
//!   with the same id and fields as `status` ([`twin`], and `connection::pull` for what is streamed). It
//!   ignores the first.
//! * 18: It drops output of a process until it attaches, and forgets a process on its `exit`: a short program
//!   could never be read. The exit is held back until the attach, at most [`EXIT_HOLD`], or until a kill is
//!   answered (`connection::view`).
//! * 20: It sends `detach` when a window closes and still needs the `exit`, or the process stays in its table
//!   for ever (`connection::requests`).
//! * 22: It draws every output message as a line of its own: small output is gathered for a moment
//!   ([`WEB_OS_GATHER`]), but for the echo of a terminal, and messages end with whole lines
//!   ([`whole_lines`], `connection::view`).
//! * 24: Its terminal window sends one `write` for each key, also to programs on pipes: Enter is `\r` where
//!   those wait for `\n`, and Ctrl-C and Ctrl-D are bytes that mean nothing to them ([`translate_input`]).
//! * 28: Of a push it only sees whether it was resolved or rejected: files that could not be written must be
//!   told as `error`, which fails the batch ([`twin`]).
//!
//! [`EXIT_HOLD`]: crate::limits::EXIT_HOLD
//! [`WEB_OS_GATHER`]: crate::limits::WEB_OS_GATHER

use mhnos_protocol::{ErrorCode, ErrorReply, Pid, Reply};
use mhnos_sandbox::Stdio;
use serde_json::value::RawValue;

use crate::limits;

/// Waiting output of this many bytes is worth a message at once.
pub(crate) const GATHER_BYTES: u64 = 16 * 1024;

/// What a key of the page's terminal means to a program that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Bytes to be read.
    Text,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D.
    EndOfFile,
}

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

/// Makes what the page's terminal sends fit for a program that has none. A control character counts only as
/// a key of its own: inside pasted text it is text.
pub(crate) fn translate_input(data: &mut [u8], stdio: Stdio) -> Input {
    match (stdio, &*data) {
        (Stdio::Pty(_), _) => Input::Text,
        (Stdio::Pipes { .. }, b"\x03") => Input::Interrupt,
        (Stdio::Pipes { .. }, b"\x04") => Input::EndOfFile,
        (Stdio::Pipes { .. }, _) => {
            data.iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b'\n');
            Input::Text
        }
    }
}

/// How many of these bytes of output make whole lines: up to the last line end, or all if there is none.
pub(crate) fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1)
}

/// Waits for the outcome of a kill as long as the page does.
pub(crate) async fn in_time<T>(outcome: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limits::WEB_OS_ANSWER, outcome).await.ok()
}

/// The answer to a kill whose outcome does not come in time.
pub(crate) fn still_ending(pid: Pid) -> ErrorReply {
    let text = format!("Process {pid} was told to end and has not yet; it is killed after its grace period");
    ErrorReply::new(ErrorCode::Internal, text).about(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn point_24_keys_mean_to_a_program_on_pipes_what_they_mean_on_a_terminal() {
        let check = |text: &str, stdio, input, becomes: &str| {
            let mut data = text.as_bytes().to_vec();
            assert_eq!(translate_input(&mut data, stdio), input, "{text:?}");
            assert_eq!(data, becomes.as_bytes(), "{text:?}");
        };
        let pipes = Stdio::Pipes { stdin: true };
        check("you\r", pipes, Input::Text, "you\n");
        check("\x03", pipes, Input::Interrupt, "\x03");
        check("\x04", pipes, Input::EndOfFile, "\x04");
        check("pasted \x03 and \x04\r", pipes, Input::Text, "pasted \x03 and \x04\n");
        let terminal = Stdio::Pty(mhnos_sandbox::WindowSize::DEFAULT);
        check("\r", terminal, Input::Text, "\r");
        check("\x03", terminal, Input::Text, "\x03");
    }

    #[test]
    fn point_22_messages_end_with_whole_lines_where_there_are_any() {
        let check =
            |text: &str, whole: &str| assert_eq!(whole_lines(text.as_bytes()), whole.len(), "{text:?}");
        check("one\ntwo\nthr", "one\ntwo\n");
        check("one\n", "one\n");
        check("prompt> ", "prompt> ");
        check("", "");
    }

    #[tokio::test(start_paused = true)]
    async fn point_7_a_kill_that_takes_longer_than_the_page_waits_is_answered_before() {
        let begin = tokio::time::Instant::now();
        assert_eq!(in_time(std::future::pending::<()>()).await, None);
        assert!(begin.elapsed() < std::time::Duration::from_secs(30));
        assert_eq!(in_time(std::future::ready(7)).await, Some(7));
    }
}
