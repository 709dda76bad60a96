//! What can be wrong, as a code for programs and a text for people. Codes are part of the contract: a
//! client may branch on them, so they are never renamed; texts may become clearer at any time.

use serde::{Deserialize, Serialize};

/// The `code` of an `error` message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// The frame is not one JSON object in UTF-8, or is nested too deeply.
    InvalidMessage,
    /// `type` is missing or names no request.
    UnknownType,
    /// A required field is missing.
    MissingField,
    /// A field has the wrong type, is out of range, or contains what it must not.
    InvalidValue,
    /// `processType` names no process type.
    UnknownProcessType,
    /// `signal` names no signal.
    UnknownSignal,
    /// `operation` of an `fsync` is neither `push` nor `pull`.
    UnknownOperation,
    /// Arguments or environment are more than a program can be given (E2BIG).
    ArgumentsTooLong,
    /// No process has this pid, or it ended so long ago that it was forgotten.
    ProcessNotFound,
    /// The process has ended; what was asked for needs a running one.
    ProcessExited,
    /// As many processes run as are allowed.
    ProcessLimit,
    /// The process's stdin is closed, or was never a pipe.
    StdinClosed,
    /// The process does not read its stdin and the queue of what was written is full.
    StdinFull,
    /// The setting that allows this is off (OpenClaw), or the scope of the client's token does not cover it.
    NotAllowed,
    /// The service asks for a token, and the client has shown none that it knows.
    Unauthorized,
    /// A path leads out of the workspace.
    PathOutsideWorkspace,
    /// A path that was named does not exist, or is not of the kind it must be.
    PathNotFound,
    /// The interpreter or program is not installed, or too old; the text says how to get it.
    ProgramNotFound,
    /// The program could not be started for another reason, which the text names.
    SpawnFailed,
    /// The sandbox that was asked for cannot be had on this host.
    IsolationUnavailable,
    /// A file could not be read or written.
    FileFailed,
    /// The answer would be larger than the stated bound.
    TooLarge,
    /// The client asks faster, or has more requests pending, than is allowed.
    TooManyRequests,
    /// The service is shutting down and starts nothing new.
    Draining,
    /// The service failed in a way that is its own fault.
    Internal,
}

impl ErrorCode {
    /// Every code, for documentation and tests.
    pub const ALL: [Self; 25] = [
        Self::InvalidMessage,
        Self::UnknownType,
        Self::MissingField,
        Self::InvalidValue,
        Self::UnknownProcessType,
        Self::UnknownSignal,
        Self::UnknownOperation,
        Self::ArgumentsTooLong,
        Self::ProcessNotFound,
        Self::ProcessExited,
        Self::ProcessLimit,
        Self::StdinClosed,
        Self::StdinFull,
        Self::NotAllowed,
        Self::Unauthorized,
        Self::PathOutsideWorkspace,
        Self::PathNotFound,
        Self::ProgramNotFound,
        Self::SpawnFailed,
        Self::IsolationUnavailable,
        Self::FileFailed,
        Self::TooLarge,
        Self::TooManyRequests,
        Self::Draining,
        Self::Internal,
    ];
}

/// A request that was refused before it reached anything: its shape is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Malformed {
    /// For programs.
    pub code: ErrorCode,
    /// For a person: names the field, what was given (shortened) and what is accepted.
    pub text: String,
}

impl Malformed {
    pub(crate) fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    pub(crate) fn value(field: &str, accepted: &str, given: &str) -> Self {
        Self::new(ErrorCode::InvalidValue, format!("{field} must be {accepted}, got {}", shorten(given)))
    }

    pub(crate) fn missing(field: &str, accepted: &str) -> Self {
        Self::new(ErrorCode::MissingField, format!("{field} is missing: {accepted}"))
    }
}

/// The longest excerpt of a client's own text that an error repeats, in characters.
const EXCERPT_CHARS: usize = 60;

/// An excerpt of what was given, short enough for a message and without control characters.
pub(crate) fn shorten(given: &str) -> String {
    let mut kept: String =
        given.chars().take(EXCERPT_CHARS).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if kept.len() < given.len() && given.chars().nth(EXCERPT_CHARS).is_some() {
        kept.push('…');
    }
    kept
}
