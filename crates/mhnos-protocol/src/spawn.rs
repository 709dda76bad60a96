//! `spawn`: what to start and how.

use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use crate::{Encoding, Events, WindowSize};

/// The kinds of program the service starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessType {
    /// Node.js with a script.
    Node,
    /// CPython with a script.
    Python,
    /// A shell, on a terminal unless asked otherwise.
    Shell,
    /// Cloudflare's workerd with a config or a worker's source.
    Workerd,
    /// OpenClaw, if allowed.
    #[serde(rename = "openclaw")]
    OpenClaw,
}

impl ProcessType {
    /// All of them, in the order they are documented.
    pub const ALL: [Self; 5] = [Self::Node, Self::Python, Self::Shell, Self::Workerd, Self::OpenClaw];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Python => "python",
            Self::Shell => "shell",
            Self::Workerd => "workerd",
            Self::OpenClaw => "openclaw",
        }
    }
}

/// `spawn`
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spawn {
    /// The kind of program.
    pub process_type: ProcessType,
    /// A script, config, shell program or subcommand: see docs/protocol.md. Without NUL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Without NUL.
    pub args: Vec<String>,
    /// All that is optional.
    pub options: SpawnOptions,
}

/// `options` of a `spawn`. Every `None` means: the server's or the process type's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SpawnOptions {
    /// The working directory, as the client wrote it. Without NUL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Set on top of the base environment, in the order given, each name once. Names are not empty and
    /// hold no `=`; neither part holds NUL.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_map")]
    pub env: Vec<(String, String)>,
    /// After this time the process is stopped. Never zero.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_millis")]
    pub timeout: Option<Duration>,
    /// On a terminal or on pipes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pty: Option<Pty>,
    /// What stdin is, for a process on pipes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<StdinMode>,
    /// Limits below the server's.
    #[serde(skip_serializing_if = "LimitsRequest::is_empty")]
    pub limits: LimitsRequest,
    /// In the workspace's sandbox or in one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<IsolationMode>,
    /// A label for people; no control characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How output is encoded in JSON frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
    /// What else to tell.
    #[serde(skip_serializing_if = "Events::is_none")]
    pub events: Events,
}

/// `options.pty`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pty {
    /// `false`: pipes.
    Off,
    /// `true`: a terminal of the default size.
    DefaultSize,
    /// `{cols, rows}`
    Size(WindowSize),
}

/// `options.stdin`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StdinMode {
    /// A pipe that `write` feeds and `closeStdin` ends.
    Pipe,
    /// `/dev/null`.
    Null,
}

/// `options.isolation`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IsolationMode {
    /// The workspace's own sandbox.
    Shared,
    /// One of its own.
    Private,
}

/// `options.limits`: each at most the server's own, which applies where one is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LimitsRequest {
    /// Bytes of memory of the process with its descendants, at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Processes and threads, at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Thousandths of a core, at least 1. On the wire `cpu` is a number of cores (0.5).
    #[serde(rename = "cpu", skip_serializing_if = "Option::is_none", serialize_with = "as_cores")]
    pub cpu_millis: Option<u32>,
}

impl LimitsRequest {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Serialize for Pty {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_bool(false),
            Self::DefaultSize => serializer.serialize_bool(true),
            Self::Size(size) => size.serialize(serializer),
        }
    }
}

fn as_map<S: Serializer>(env: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(env.iter().map(|(name, value)| (name, value)))
}

#[expect(clippy::ref_option, reason = "the signature serde's serialize_with asks for")]
fn as_millis<S: Serializer>(timeout: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    let millis = timeout.map_or(0, |timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
    serializer.serialize_u64(millis)
}

#[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "as above")]
fn as_cores<S: Serializer>(millis: &Option<u32>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(f64::from(millis.unwrap_or(0)) / 1000.0)
}
