//! Everything a client may ask, typed. A value of these types has been validated: the server checks
//! meaning (does this process exist), never shape.

use serde::Serialize;
use serde::ser::SerializeStruct;
use serde_json::value::RawValue;

use crate::files::{BadEntry, FileEntry};
use crate::frame::framed;
use crate::{Pid, Signal, Spawn, WindowSize};

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Start a program. Answered by `spawned` or `error`.
    Spawn(Box<Spawn>),
    /// View a process's output. Answered by the replay, then `attached`, then `exit` if it has ended.
    Attach(Attach),
    /// View it no longer. Answered by `detached`.
    Detach {
        /// Whose output.
        pid: Pid,
    },
    /// Write to a process's stdin. With an id answered by `written` or `error`.
    Write(Write),
    /// End of file on stdin, after what was written before. With an id answered by `stdinClosed` or `error`.
    CloseStdin {
        /// Whose stdin.
        pid: Pid,
    },
    /// Change a terminal's size. With an id answered by `resized` or `error`.
    Resize(Resize),
    /// Signal a process. Answered by `killed` or `error`.
    Kill(Kill),
    /// Name the processes. Answered by `processList`.
    List {
        /// Exited ones that are still retained, too.
        all: bool,
    },
    /// Name the ports that are listened on. Answered by `ports`.
    Ports {
        /// Of this process only.
        pid: Option<Pid>,
    },
    /// Give a process's previews other names, if names are what protects them. Answered by `previewRevoked`.
    RevokePreview {
        /// Whose.
        pid: Pid,
    },
    /// Describe the service. Answered by `status`.
    Status,
    /// Answered by `pong`.
    Ping,
    /// Show a token. Answered by `authenticated` or `error`.
    Auth(PresentedToken),
    /// Write files into the workspace. Answered by `fsyncResult`. An entry that is wrong does not take
    /// the others with it.
    Push {
        /// In the order given.
        files: Vec<Result<FileEntry, BadEntry>>,
    },
    /// Read the workspace's files. Answered by `fsyncResult`.
    Pull,
}

/// `auth`: what a client shows, unchecked. Its text appears in no log and no error.
#[derive(Clone, PartialEq, Eq)]
pub struct PresentedToken(pub String);

impl std::fmt::Debug for PresentedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PresentedToken(..)")
    }
}

/// `attach`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Attach {
    /// Whose output.
    pub pid: Pid,
    /// The position (`seq`) after which to go on; absent: from the oldest byte retained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// How `data` is encoded for this viewer; absent: as the `spawn` asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
    /// What else to tell.
    #[serde(skip_serializing_if = "Events::is_none")]
    pub events: Events,
}

/// `events` of a `spawn` or `attach`: what a viewer is told only if it asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// What the program was refused outside.
    pub egress: bool,
}

impl Events {
    /// Nothing of it.
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "the signature serde's skip_serializing_if asks for"
    )]
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl Serialize for Events {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.egress.then_some("egress"))
    }
}

/// `write`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Whose stdin.
    pub pid: Pid,
    /// The bytes, whichever way they were encoded.
    pub data: Vec<u8>,
}

/// `resize`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Resize {
    /// Whose terminal.
    pub pid: Pid,
    /// The new size.
    #[serde(flatten)]
    pub size: WindowSize,
}

/// `kill`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Kill {
    /// Whom.
    pub pid: Pid,
    /// SIGTERM unless given.
    pub signal: Signal,
    /// The tree unless given.
    pub scope: Scope,
}

/// How far a signal reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The program and all its descendants.
    #[default]
    Tree,
    /// The program alone.
    Leader,
}

/// How bytes become the `data` of a JSON frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Text; what is not UTF-8 becomes U+FFFD.
    Utf8,
    /// Standard base64 with padding: byte-exact.
    Base64,
}

impl Request {
    /// The `type` on the wire.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Spawn(_) => "spawn",
            Self::Attach(_) => "attach",
            Self::Detach { .. } => "detach",
            Self::Write(_) => "write",
            Self::CloseStdin { .. } => "closeStdin",
            Self::Resize(_) => "resize",
            Self::Kill(_) => "kill",
            Self::List { .. } => "list",
            Self::Ports { .. } => "ports",
            Self::RevokePreview { .. } => "revokePreview",
            Self::Status => "status",
            Self::Ping => "ping",
            Self::Auth(_) => "auth",
            Self::Push { .. } | Self::Pull => "fsync",
        }
    }

    /// Whether it is answered even if it carries no `id`.
    pub fn is_answered_without_id(&self) -> bool {
        !matches!(self, Self::Write(_) | Self::Resize(_) | Self::CloseStdin { .. })
    }

    /// The message a client sends. [`BadEntry`]s of a push are left out.
    pub fn to_json(&self, id: Option<&RawValue>) -> String {
        #[derive(Serialize)]
        struct OfPid {
            pid: Pid,
        }
        #[derive(Serialize)]
        struct List {
            all: bool,
        }
        #[derive(Serialize)]
        struct Ports {
            #[serde(skip_serializing_if = "Option::is_none")]
            pid: Option<Pid>,
        }
        #[derive(Serialize)]
        struct Fsync<'a> {
            operation: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            files: Option<Vec<&'a FileEntry>>,
        }
        #[derive(Serialize)]
        struct Auth<'a> {
            token: &'a str,
        }
        #[derive(Serialize)]
        struct Empty {}

        let kind = self.type_name();
        match self {
            Self::Spawn(spawn) => framed(kind, id, spawn),
            Self::Attach(attach) => framed(kind, id, attach),
            Self::Detach { pid } | Self::CloseStdin { pid } | Self::RevokePreview { pid } => {
                framed(kind, id, &OfPid { pid: *pid })
            }
            Self::Ports { pid } => framed(kind, id, &Ports { pid: *pid }),
            Self::Write(write) => framed(kind, id, write),
            Self::Resize(resize) => framed(kind, id, resize),
            Self::Kill(kill) => framed(kind, id, kill),
            Self::List { all } => framed(kind, id, &List { all: *all }),
            Self::Status | Self::Ping => framed(kind, id, &Empty {}),
            Self::Auth(PresentedToken(token)) => framed(kind, id, &Auth { token }),
            Self::Push { files } => {
                let files = files.iter().filter_map(|entry| entry.as_ref().ok()).collect();
                framed(kind, id, &Fsync { operation: "push", files: Some(files) })
            }
            Self::Pull => framed(kind, id, &Fsync { operation: "pull", files: None }),
        }
    }
}

impl Serialize for Write {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Write", 3)?;
        fields.serialize_field("pid", &self.pid)?;
        if let Ok(text) = simdutf8::basic::from_utf8(&self.data) {
            fields.serialize_field("data", text)?;
        } else {
            fields.serialize_field("data", &base64_simd::STANDARD.encode_to_string(&self.data))?;
            fields.serialize_field("encoding", &Encoding::Base64)?;
        }
        fields.end()
    }
}
