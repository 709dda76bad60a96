//! What was found of the programs, and what is to be said of those that were not.

use mhnos_sandbox::Launch;

use crate::{Context, RecipeError, Tool, Version, environment};

/// Whether OpenClaw runs on this Node.js: the `engines` of its package, `>=24.16.0 <25 || >=26.1.0`.
fn runs_openclaw(node: Version) -> bool {
    (Version(24, 16, 0)..Version(25, 0, 0)).contains(&node) || node >= Version(26, 1, 0)
}

/// `HOME` of probes: what they leave behind is nobody's.
const PROBE_HOME: &str = "/tmp";

/// What is known of one tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nobody has looked yet, or no directory of `PATH` has it.
    Missing,
    /// It is there and will do.
    Found {
        /// Absolute path.
        path: String,
        /// As it says itself.
        version: Version,
    },
    /// It is there but too old.
    TooOld {
        /// Absolute path.
        path: String,
        /// As it says itself.
        version: Version,
    },
    /// It is there but did not say its version.
    Broken {
        /// Absolute path.
        path: String,
        /// What it said instead, or why it could not be started.
        text: String,
    },
}

/// All findings. Filled at start, and anew where something was missing: for each of [`Tool::ALL`] in that order
/// (OpenClaw runs on the Node that was found), [`Tool::locate`], then the launch of [`Toolbox::probe`], then
/// [`Toolbox::record`] with what it printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolbox {
    findings: [Finding; 5],
}

impl Default for Toolbox {
    fn default() -> Self {
        Self { findings: [const { Finding::Missing }; 5] }
    }
}

impl Toolbox {
    /// The launch that makes the tool at `path` say its version on stdout. It runs outside the workspace, so
    /// that nothing in there is taken for its configuration.
    pub fn probe(&self, tool: Tool, path: &str, context: &Context) -> Launch {
        let mut argv = vec![path.to_owned(), "--version".to_owned()];
        if let (Tool::OpenClaw, Finding::Found { path: node, .. }) = (tool, self.finding(Tool::Node)) {
            argv.insert(0, node.clone());
        }
        let mut env = environment::base(context);
        environment::set(&mut env, [("HOME".to_owned(), PROBE_HOME.to_owned())]);
        Launch { program: argv[0].clone(), argv, env, cwd: "/".to_owned(), extra_fds: Vec::new() }
    }

    /// Notes what the probe said: `Ok` with its stdout if it exited with 0, else `Err` with a reason.
    pub fn record(&mut self, tool: Tool, path: &str, said: Result<&str, String>) {
        let path = path.to_owned();
        self.findings[tool as usize] = match said.map(|text| (Version::find(text), text)) {
            Ok((Some(version), _)) if version < tool.minimum() => Finding::TooOld { path, version },
            Ok((Some(version), _)) => Finding::Found { path, version },
            Ok((None, text)) => Finding::Broken { path, text: first_line(text) },
            Err(text) => Finding::Broken { path, text },
        };
    }

    /// What is known of this tool.
    pub fn finding(&self, tool: Tool) -> &Finding {
        &self.findings[tool as usize]
    }

    /// What keeps this tool from being used, with the command that installs it; `None` if it will do. One
    /// line, for the log, for `status`, and for the `error` of a spawn.
    pub fn problem(&self, tool: Tool) -> Option<String> {
        let label = tool.label();
        let needed = match tool.minimum() {
            Version(0, 0, 0) => String::new(),
            minimum => format!("; {label} {} or newer is needed", minimum.short()),
        };
        let what = match self.finding(tool) {
            Finding::Found { version, .. } if tool == Tool::OpenClaw => {
                return self.node_for_openclaw(*version);
            }
            Finding::Found { .. } => return None,
            Finding::Missing => format!("{} is not installed{needed}", tool.program()),
            Finding::TooOld { path, version } => {
                format!("{path} is {label} {version}{needed}")
            }
            Finding::Broken { path, text } => format!("{path} does not work ({text})"),
        };
        Some(install_hint(&what, tool))
    }

    /// The tool's path and version, or why it cannot be used.
    pub(crate) fn require(&self, tool: Tool) -> Result<(&str, Version), RecipeError> {
        match (self.problem(tool), self.finding(tool)) {
            (None, Finding::Found { path, version }) => Ok((path, *version)),
            (text, _) => Err(RecipeError::ToolUnavailable { tool, text: text.unwrap_or_default() }),
        }
    }

    fn node_for_openclaw(&self, openclaw: Version) -> Option<String> {
        match self.finding(Tool::Node) {
            Finding::Found { version, .. } if runs_openclaw(*version) => None,
            Finding::Found { path, version } | Finding::TooOld { path, version } => {
                let what =
                    format!("OpenClaw {openclaw} needs Node.js 24.16 or newer (not 25); {path} is {version}");
                Some(install_hint(&what, Tool::Node))
            }
            Finding::Missing | Finding::Broken { .. } => self.problem(Tool::Node),
        }
    }
}

fn install_hint(what: &str, tool: Tool) -> String {
    format!("{what}. Install it with: {}", tool.install_command())
}

fn first_line(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    if line.is_empty() { "it says nothing".to_owned() } else { format!("it says {line:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toolbox(said: &[(Tool, Result<&str, &str>)]) -> Toolbox {
        let mut toolbox = Toolbox::default();
        for (tool, said) in said {
            toolbox.record(*tool, &format!("/bin/{}", tool.program()), said.map_err(str::to_owned));
        }
        toolbox
    }

    #[test]
    fn what_is_wrong_is_said_with_the_command_that_helps() {
        let check = |tool: Tool, said: &[(Tool, Result<&str, &str>)], expected: Option<&str>| {
            assert_eq!(toolbox(said).problem(tool).as_deref(), expected);
        };
        check(Tool::Node, &[(Tool::Node, Ok("v22.0.0"))], None);
        check(Tool::Python, &[(Tool::Python, Ok("Python 3.9.0"))], None);
        check(
            Tool::Node,
            &[],
            Some(
                "node is not installed; Node.js 22 or newer is needed. \
                 Install it with: apt-get install -y npm && npm install -g node@24",
            ),
        );
        check(
            Tool::Python,
            &[(Tool::Python, Ok("Python 3.8.19"))],
            Some(
                "/bin/python3 is Python 3.8.19; Python 3.9 or newer is needed. \
                 Install it with: apt-get install -y python3",
            ),
        );
        check(Tool::Workerd, &[], Some("workerd is not installed. Install it with: npm install -g workerd"));
        check(
            Tool::Workerd,
            &[(Tool::Workerd, Err("exited with 127"))],
            Some("/bin/workerd does not work (exited with 127). Install it with: npm install -g workerd"),
        );
        check(
            Tool::Bash,
            &[(Tool::Bash, Ok("hello\nworld"))],
            Some("/bin/bash does not work (it says \"hello\"). Install it with: apt-get install -y bash"),
        );
    }

    #[test]
    fn openclaw_needs_its_own_versions_of_node() {
        let openclaw = (Tool::OpenClaw, Ok("OpenClaw 2026.9.6 (eb377ac)"));
        let check = |node: Option<&str>, expected: Option<&str>| {
            let node = node.map(|version| (Tool::Node, Ok(version)));
            let said: Vec<_> = node.into_iter().chain([openclaw]).collect();
            let problem = toolbox(&said).problem(Tool::OpenClaw);
            assert_eq!(problem.as_deref().and_then(|text| text.split(". ").next()), expected);
        };
        let needed = "OpenClaw 2026.9.6 needs Node.js 24.16 or newer (not 25); /bin/node is";
        check(Some("v24.16.0"), None);
        check(Some("v26.1.0"), None);
        check(Some("v24.15.9"), Some(&format!("{needed} 24.15.9")));
        check(Some("v25.3.0"), Some(&format!("{needed} 25.3.0")));
        check(Some("v18.0.0"), Some(&format!("{needed} 18.0.0")));
        check(None, Some("node is not installed; Node.js 22 or newer is needed"));
    }
}
