//! The programs that process types need: what they are called, how old they may be, where they are looked
//! for, and what installs them.

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
    /// `openclaw`, any version; it needs a newer Node than we do ([`Toolbox::problem`](crate::Toolbox::problem)).
    OpenClaw,
}

impl Tool {
    /// All, in the order in which they are said.
    pub const ALL: [Self; 5] = [Self::Node, Self::Python, Self::Bash, Self::Workerd, Self::OpenClaw];

    /// The program's file name.
    pub fn program(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Python => "python3",
            Self::Bash => "bash",
            Self::Workerd => "workerd",
            Self::OpenClaw => "openclaw",
        }
    }

    /// As people call it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Node => "Node.js",
            Self::Python => "Python",
            Self::Bash => "bash",
            Self::Workerd => "workerd",
            Self::OpenClaw => "OpenClaw",
        }
    }

    /// The oldest version that will do.
    pub fn minimum(self) -> Version {
        match self {
            Self::Node => Version(22, 0, 0),
            Self::Python => Version(3, 9, 0),
            Self::Bash | Self::Workerd | Self::OpenClaw => Version(0, 0, 0),
        }
    }

    /// The command that installs it, as root on Debian or Ubuntu, whose own Node.js may be too old.
    pub fn install_command(self) -> &'static str {
        match self {
            Self::Node => "apt-get install -y npm && npm install -g node@24",
            Self::Python => "apt-get install -y python3",
            Self::Bash => "apt-get install -y bash",
            Self::Workerd => "npm install -g workerd",
            Self::OpenClaw => "npm install -g openclaw@latest",
        }
    }

    /// Where the program is: the first directory of `path` (a `PATH`) that holds it. `is_executable` answers
    /// for an absolute path of the host. For workerd the native binary is preferred to the npm package's
    /// wrapper script beside it, because a wrapper does not pass descriptors on.
    pub fn locate(self, path: &str, is_executable: &dyn Fn(&str) -> bool) -> Option<String> {
        let directories = path.split(':').filter(|directory| directory.starts_with('/'));
        let found = directories
            .map(|directory| directory.trim_end_matches('/'))
            .find(|directory| is_executable(&format!("{directory}/{}", self.program())))?;
        let native = (self == Self::Workerd)
            .then(|| native_workerd(found).into_iter().find(|candidate| is_executable(candidate)))
            .flatten();
        Some(native.unwrap_or_else(|| format!("{found}/{}", self.program())))
    }
}

/// Where npm puts workerd's native binary when it puts the command into `directory`: beside the package, or
/// inside it.
fn native_workerd(directory: &str) -> Vec<String> {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "64" };
    let modules = match directory.strip_suffix("/.bin") {
        Some(modules) => modules.to_owned(),
        None => format!("{}/lib/node_modules", directory.strip_suffix("/bin").unwrap_or(directory)),
    };
    let binary = format!("@cloudflare/workerd-linux-{architecture}/bin/workerd");
    vec![format!("{modules}/{binary}"), format!("{modules}/workerd/node_modules/{binary}")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_directory_of_the_path_counts() {
        let check = |tool: Tool, path: &str, there: &[&str], expected: Option<&str>| {
            let found = tool.locate(path, &|file| there.contains(&file));
            assert_eq!(found.as_deref(), expected, "{tool:?} in {path:?}");
        };
        check(Tool::Node, "/a:/b/", &["/b/node"], Some("/b/node"));
        check(Tool::Node, "/a:/b", &["/a/node", "/b/node"], Some("/a/node"));
        check(Tool::Node, ".::b:/b", &["./node", "b/node", "/node"], None);
        check(Tool::Python, "/usr/bin", &["/usr/bin/python3"], Some("/usr/bin/python3"));
        check(Tool::Workerd, "/usr/bin", &["/usr/bin/workerd"], Some("/usr/bin/workerd"));
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn workerd_is_the_native_binary_of_its_package() {
        let check = |path: &str, native: &str| {
            let wrapper = format!("{path}/workerd");
            let found = Tool::Workerd.locate(path, &|file| file == wrapper || file == native);
            assert_eq!(found.as_deref(), Some(native));
        };
        check("/t/node_modules/.bin", "/t/node_modules/@cloudflare/workerd-linux-64/bin/workerd");
        let global =
            "/usr/local/lib/node_modules/workerd/node_modules/@cloudflare/workerd-linux-64/bin/workerd";
        check("/usr/local/bin", global);
    }
}
