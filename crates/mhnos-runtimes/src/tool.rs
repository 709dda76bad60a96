//! The programs that process types need.

use crate::Version;

/// A program of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tool {
    /// `node`, 22 or newer.
    Node,
    /// `python3`, 3.9 or newer.
    Python,
    /// `bash`, any version.
    Bash,
    /// `workerd`, any version.
    Workerd,
    /// `openclaw`, any version; it needs Node 24.16 or newer.
    OpenClaw,
}

impl Tool {
    /// All, in the order in which they are said.
    pub const ALL: [Self; 5] = [Self::Node, Self::Python, Self::Bash, Self::Workerd, Self::OpenClaw];

    /// The program's file name.
    pub fn program(self) -> &'static str {
        todo!()
    }

    /// The oldest version that will do.
    pub fn minimum(self) -> Version {
        todo!()
    }

    /// The command that installs it.
    pub fn install_command(self) -> &'static str {
        todo!()
    }

    /// Where the program is: the first directory of `path` (a `PATH`) that holds it. `is_executable` answers
    /// for an absolute path of the host. For workerd the native binary is preferred to the npm package's
    /// wrapper script beside it, because a wrapper does not pass descriptors on.
    pub fn locate(self, path: &str, is_executable: &dyn Fn(&str) -> bool) -> Option<String> {
        let _ = (path, is_executable);
        todo!()
    }
}
