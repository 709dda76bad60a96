//! The answer to a pull: one message, however large, that is never in memory as a whole. It is read from
//! disk and sent in fragments as the socket takes them.
//!
//! When it begins nobody knows how it will end: a file may become unreadable on the way. So what a client
//! branches on, the `type` and the `id`, stands at the message's end, and a pull that fails half way ends as
//! the `error` it is.

use mhnos_protocol::{ErrorCode, ErrorReply, PullWriter};
use mhnos_workspace::{Piece, Pull, PullError, PullSettings, Workspace};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

use super::{Dialect, lane::Id};
use crate::limits;

/// A message in the making.
pub(super) struct PullMessage {
    /// `None` when all of it has been handed out.
    source: Option<Source>,
    begun: bool,
    /// What it ended with, if that was an error.
    failed: Option<ErrorCode>,
}

/// Where it comes from.
struct Source {
    workspace: Workspace,
    settings: PullSettings,
    /// `None` until the first fragment is asked for.
    pull: Option<Pull>,
    writer: PullWriter,
    /// The message's `type`.
    kind: &'static str,
    id: Id,
}

/// A fragment of the message.
struct Fragment {
    bytes: Vec<u8>,
    /// Where the next one comes from, if this is not the last.
    source: Option<Source>,
    /// This ends the message as an error.
    failed: Option<ErrorCode>,
}

/// Begins a pull, or says why there can be none. For a Web OS client it is sent a second time under a type
/// that the page looks at (see [`crate::web_os`]).
pub(super) async fn begin(
    workspace: Workspace,
    settings: PullSettings,
    id: Id,
    dialect: Dialect,
) -> Result<Vec<PullMessage>, ErrorReply> {
    let (walker, wanted) = (workspace.clone(), settings.clone());
    let survey = tokio::task::spawn_blocking(move || walker.survey(&wanted));
    match survey.await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(refused(&error)),
        Err(error) => return Err(ErrorReply::new(ErrorCode::Internal, format!("the pull failed: {error}"))),
    }
    let kinds: &[&str] = if dialect.web_os { &["fsyncResult", "status"] } else { &["fsyncResult"] };
    let message = |kind: &&'static str| {
        let (workspace, settings, id) = (workspace.clone(), settings.clone(), id.clone());
        let source = Source { workspace, settings, pull: None, writer: PullWriter::new(), kind, id };
        PullMessage { source: Some(source), begun: false, failed: None }
    };
    Ok(kinds.iter().map(message).collect())
}

impl PullMessage {
    /// The error it ended with.
    pub(super) fn failed(&self) -> Option<ErrorCode> {
        self.failed
    }

    /// The next fragment, `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Message> {
        let source = self.source.take()?;
        // A panic there loses the message; an empty last fragment at least ends it.
        let empty = Fragment { bytes: Vec::new(), source: None, failed: Some(ErrorCode::Internal) };
        let fragment = tokio::task::spawn_blocking(move || source.fragment()).await.unwrap_or(empty);
        let data = if self.begun { Data::Continue } else { Data::Text };
        let last = fragment.source.is_none();
        self.begun = true;
        self.source = fragment.source;
        self.failed = fragment.failed;
        Some(Message::Frame(Frame::message(fragment.bytes, OpCode::Data(data), last)))
    }
}

impl Source {
    /// Reads until a fragment is full or the walk is over. Blocks.
    fn fragment(mut self) -> Fragment {
        match self.fill() {
            Ok(true) => Fragment { bytes: self.writer.take(), source: Some(self), failed: None },
            Ok(false) => {
                let bytes = self.writer.finish(self.kind, self.id.as_deref());
                Fragment { bytes, source: None, failed: None }
            }
            Err(error) => {
                let error = refused(&error);
                let bytes = self.writer.fail(self.id.as_deref(), &error);
                Fragment { bytes, source: None, failed: Some(error.code) }
            }
        }
    }

    /// `false`: the walk is over.
    fn fill(&mut self) -> Result<bool, PullError> {
        let pull = match &mut self.pull {
            Some(pull) => pull,
            None => self.pull.insert(self.workspace.pull(self.settings.clone())?),
        };
        let mut buffer = vec![0; limits::PULL_BUFFER];
        while self.writer.len() < limits::PULL_FRAGMENT {
            match pull.next(&mut buffer)? {
                None => return Ok(false),
                Some(Piece::Directory { path }) => self.writer.directory(path),
                Some(Piece::File { path, mtime_ms, .. }) => self.writer.file(path, mtime_ms),
                Some(Piece::Content(bytes)) => self.writer.bytes(bytes),
                Some(Piece::FileEnd) => {}
            }
        }
        Ok(true)
    }
}

fn refused(error: &PullError) -> ErrorReply {
    let code = match error {
        PullError::TooLarge { .. } | PullError::TooMany { .. } | PullError::TooDeep { .. } => {
            ErrorCode::TooLarge
        }
        PullError::Io { .. } => ErrorCode::FileFailed,
    };
    ErrorReply::new(code, error.to_string())
}
