//! What is written down of an event, and nothing more.

use std::{borrow::Cow, net::SocketAddr};

use serde::Serialize;

/// The most bytes of a text that others have chosen (a path, an origin, a name).
const LONGEST_TEXT: usize = 256;

/// Who did it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Who {
    /// Where the connection comes from.
    pub(crate) peer: SocketAddr,
    /// Which connection: the bridge's number and the connection's own in it.
    pub(crate) connection: String,
    /// The page's origin, if it is a page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<String>,
    /// The name of the token it came in with, where there are tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) principal: Option<String>,
}

/// Text of somebody else, cut to what a line can bear.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Clip<'a>(Cow<'a, str>);

impl<'a> From<&'a str> for Clip<'a> {
    fn from(text: &'a str) -> Self {
        if text.len() <= LONGEST_TEXT {
            return Self(text.into());
        }
        let cut = text.floor_char_boundary(LONGEST_TEXT);
        Self(format!("{}…", &text[..cut]).into())
    }
}

/// What happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Event<'a> {
    /// A bridge serves.
    Start { version: &'static str, bridge: u32, mode: &'static str, tier: &'static str },
    /// A bridge ends: the service stops, or another one takes over.
    Stop { bridge: u32, replaced: bool },
    /// A WebSocket is open.
    Connect { client: String },
    /// It is no longer.
    Disconnect { reason: String, duration_ms: u64 },
    /// Somebody was turned away before that.
    Refuse { peer: SocketAddr, cause: String, why: Clip<'a> },
    /// Somebody asked for what their token does not cover.
    Denied { request: &'static str },
    /// A program was started.
    Spawn {
        pid: u32,
        #[serde(rename = "type")]
        process_type: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        command: Option<Clip<'a>>,
        args: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<Clip<'a>>,
        tier: &'static str,
    },
    /// A program was not started.
    SpawnFailed {
        #[serde(rename = "type")]
        process_type: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        command: Option<Clip<'a>>,
        args: usize,
        code: String,
    },
    /// Somebody asked for a signal to a process.
    Kill { pid: u32, signal: Cow<'a, str>, scope: &'static str },
    /// The names of a process's previews were replaced.
    RevokePreview { pid: u32 },
    /// Somebody views a process.
    Attach { pid: u32 },
    /// A connection writes to a process for the first time.
    Write { pid: u32 },
    /// Files were written.
    Push { files: u64, failed: u64, bytes: u64 },
    /// The workspace was read.
    Pull,
    /// A program has ended.
    Exit {
        pid: u32,
        #[serde(rename = "type")]
        process_type: Clip<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<u8>,
        #[serde(skip_serializing_if = "Option::is_none")]
        signal: Option<String>,
        reason: &'static str,
        runtime_ms: u64,
        /// It had ended before this bridge began: an earlier one may have written it down already.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        earlier: bool,
    },
    /// A program wanted to reach what it may not.
    EgressRefused {
        #[serde(skip_serializing_if = "Option::is_none")]
        pid: Option<u32>,
        target: Clip<'a>,
        /// The rule that refused it.
        cause: Clip<'a>,
        /// How many alike, in a short time.
        count: u64,
    },
    /// So many lines are missing about here.
    Lost { lines: u64 },
}

#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    #[serde(flatten)]
    event: &'a Event<'a>,
    #[serde(flatten)]
    who: Option<&'a Who>,
}

/// The line, with its end.
pub(super) fn line(time: &str, who: Option<&Who>, event: &Event<'_>) -> String {
    let mut line = serde_json::to_string(&Line { time, event, who }).unwrap_or_default();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(who: Option<&Who>, event: &Event<'_>, expected: &str) {
        assert_eq!(line("T", who, event), format!("{expected}\n"));
    }

    #[test]
    fn lines_are_json_whatever_others_have_chosen() {
        let who = Who {
            peer: "[::1]:5".parse().expect("address"),
            connection: "1.7".to_owned(),
            origin: Some("http://localhost".to_owned()),
            principal: None,
        };
        let command = Some("a\nb\"".into());
        let spawn =
            Event::Spawn { pid: 1000, process_type: "node", command, args: 2, name: None, tier: "T1" };
        check(
            Some(&who),
            &spawn,
            r#"{"time":"T","event":"spawn","pid":1000,"type":"node","command":"a\nb\"","args":2,"tier":"T1","peer":"[::1]:5","connection":"1.7","origin":"http://localhost"}"#,
        );
        check(None, &Event::Pull, r#"{"time":"T","event":"pull"}"#);
        let refused =
            Event::EgressRefused { pid: None, target: "a:1".into(), cause: "private".into(), count: 2 };
        check(
            None,
            &refused,
            r#"{"time":"T","event":"egressRefused","target":"a:1","cause":"private","count":2}"#,
        );
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let long = "é".repeat(200);
        let Clip(cut) = Clip::from(long.as_str());
        assert_eq!(cut.chars().count(), 129);
        assert!(cut.ends_with("é…"));
        let Clip(short) = Clip::from("short");
        assert_eq!(short, "short");
    }
}
