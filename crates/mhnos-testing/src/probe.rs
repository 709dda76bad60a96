//! The probe program's side outside: bringing it in, and reading what it reports.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::server::Server;

/// One thing the probe tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// What it tried, a stable name.
    pub name: String,
    /// "ok", "denied" (the kernel said no) or "value" (nothing to deny: a fact).
    pub outcome: String,
    /// The kernel's error name, for "denied".
    pub errno: Option<String>,
    /// What it saw.
    pub value: Value,
}

/// A report of `mhnos-probe`.
#[derive(Debug, Clone)]
pub struct Probe {
    attempts: Vec<Attempt>,
}

impl Probe {
    /// Copies the probe program into the workspace and returns its path as processes see it.
    ///
    /// `service` is the service's binary, beside which cargo puts the probe.
    #[track_caller]
    pub fn install(server: &Server, service: impl AsRef<Path>) -> String {
        let program = Self::program(service);
        let bytes = std::fs::read(&program).unwrap_or_else(|error| {
            panic!(
                "{}: {error}; to build it: cargo build --workspace (with --release where the test has it)",
                program.display()
            )
        });
        server.write("mhnos-probe", bytes)
    }

    /// The probe program beside the service's binary.
    pub fn program(service: impl AsRef<Path>) -> PathBuf {
        service.as_ref().with_file_name("mhnos-probe")
    }

    /// Reads a report; lines that are not the probe's are a failure.
    #[track_caller]
    pub fn parse(stdout: &str) -> Self {
        let attempts = stdout.lines().map(|line| {
            let mut report: Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("no report ({error}): {line}"));
            let text = |value: &Value| value.as_str().map(str::to_owned);
            Attempt {
                name: text(&report["attempt"]).unwrap_or_else(|| panic!("no attempt: {line}")),
                outcome: text(&report["outcome"]).unwrap_or_else(|| panic!("no outcome: {line}")),
                errno: text(&report["errno"]),
                value: report["value"].take(),
            }
        });
        Self { attempts: attempts.collect() }
    }

    /// One attempt; panics where the probe did not make it.
    #[track_caller]
    pub fn attempt(&self, name: &str) -> &Attempt {
        let found = self.attempts.iter().find(|attempt| attempt.name == name);
        found.unwrap_or_else(|| panic!("the probe did not report {name}: {:#?}", self.attempts))
    }

    /// What the probe saw.
    #[track_caller]
    pub fn value(&self, name: &str) -> &Value {
        &self.attempt(name).value
    }

    /// Panics unless this was denied with one of these errors.
    #[track_caller]
    pub fn assert_denied(&self, name: &str, errnos: &[&str]) {
        let attempt = self.attempt(name);
        let errno = attempt.errno.as_deref().unwrap_or_default();
        assert!(
            attempt.outcome == "denied" && errnos.contains(&errno),
            "{name} should fail with {errnos:?}: {attempt:?}"
        );
    }

    /// Panics unless this worked.
    #[track_caller]
    pub fn assert_ok(&self, name: &str) {
        let attempt = self.attempt(name);
        assert_eq!(attempt.outcome, "ok", "{name} should work: {attempt:?}");
    }
}
