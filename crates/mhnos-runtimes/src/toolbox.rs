//! What was found of the programs, and what is to be said of those that were not.

use mhnos_sandbox::Launch;

use crate::{Context, Tool, Version};

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

/// All findings. Filled once at start: for each [`Tool`], [`Tool::locate`], then the launch of
/// [`Toolbox::probe`], then [`Toolbox::record`] with what it printed.
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
    /// The launch that makes the tool at `path` say its version on stdout.
    pub fn probe(&self, tool: Tool, path: &str, context: &Context) -> Launch {
        let _ = (tool, path, context);
        todo!()
    }

    /// Notes what the probe said: `Ok` with its stdout if it exited with 0, else `Err` with a reason. Record
    /// [`Tool::Node`] before [`Tool::OpenClaw`], which depends on it.
    pub fn record(&mut self, tool: Tool, path: &str, said: Result<&str, String>) {
        let _ = (tool, path, said);
        todo!()
    }

    /// What is known of this tool.
    pub fn finding(&self, tool: Tool) -> &Finding {
        &self.findings[tool as usize]
    }

    /// What keeps this tool from being used, with the command that installs it; `None` if it will do. One
    /// line, for the log, for `status`, and for the `error` of a spawn.
    pub fn problem(&self, tool: Tool) -> Option<String> {
        let _ = tool;
        todo!()
    }
}
