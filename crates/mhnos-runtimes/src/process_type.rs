//! The five process types, and what `command` means for each.

/// What a client may ask to be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProcessType {
    /// A Node.js program.
    Node,
    /// A Python 3 program.
    Python,
    /// A shell, on a terminal unless told otherwise.
    Shell,
    /// A worker, served by workerd.
    Workerd,
    /// An OpenClaw subcommand, `gateway` by default.
    OpenClaw,
}

/// What has to be done with a request's `command` before it goes into a [`Command`](crate::Command).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandRole {
    /// There is none (absent, null or empty): `Command::Absent`.
    Absent,
    /// A flag, a subcommand or a program of the host, taken as it is: `Command::Word`.
    Word,
    /// A path in the workspace, to be resolved there: `Command::Path`.
    Path {
        /// Tried in order after the path; the empty one is the path as it is.
        extensions: &'static [&'static str],
        /// Whether the interpreter can run a directory.
        directories: bool,
    },
}

impl ProcessType {
    /// All, in the order of the specification.
    pub const ALL: [Self; 5] = [Self::Node, Self::Workerd, Self::Shell, Self::Python, Self::OpenClaw];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Python => "python",
            Self::Shell => "shell",
            Self::Workerd => "workerd",
            Self::OpenClaw => "openclaw",
        }
    }

    /// The type with exactly this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// What `command` is. A first word that begins with `-` is a flag of the interpreter, not a path. For
    /// `shell`, `/bin/bash` and `bash` are programs of the host; `./tool.sh` and `dir/tool.sh` are paths.
    pub fn command_role(self, command: Option<&str>) -> CommandRole {
        let Some(command) = command.filter(|command| !command.is_empty()) else { return CommandRole::Absent };
        let relative = command.contains('/') && !command.starts_with('/');
        match self {
            _ if command.starts_with('-') => CommandRole::Word,
            Self::OpenClaw => CommandRole::Word,
            Self::Shell if !relative => CommandRole::Word,
            Self::Node => CommandRole::Path { extensions: &["", ".js", ".json", ".node"], directories: true },
            Self::Python => CommandRole::Path { extensions: &[""], directories: true },
            Self::Shell | Self::Workerd => CommandRole::Path { extensions: &[""], directories: false },
        }
    }
}
