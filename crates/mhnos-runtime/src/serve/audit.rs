//! The audit log's file, opened while the service may still open it.

use std::{fs, os::fd::OwnedFd, path::Path};

use anyhow::Context;
use mhnos_server::{
    audit::AuditFile,
    config::{AuditLog, Config},
};

/// The file, and whether it was made just now.
pub(super) struct Opened {
    pub(super) file: AuditFile,
    made: bool,
}

impl Opened {
    /// The file, if it was made just now: then it is to belong to the account of the service.
    pub(super) fn made(&self) -> Option<&OwnedFd> {
        self.made.then(|| self.file.file())
    }
}

/// Opens the file that is configured, if one is. Programs must not reach it, so it is not in the workspace.
pub(super) fn open(config: &Config) -> anyhow::Result<Option<Opened>> {
    let AuditLog::File(path) = &config.audit_log else { return Ok(None) };
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let parent = path.parent().unwrap_or(path);
    anyhow::ensure!(
        !real(parent).starts_with(real(&config.workspace)),
        "the audit log {} would be in the workspace, where programs could change it; choose another place with \
         MHNOS_AUDIT_LOG",
        path.display()
    );
    let (file, made) = AuditFile::open(path).context("cannot begin the audit log")?;
    Ok(Some(Opened { file, made }))
}
