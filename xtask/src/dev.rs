//! Build, serve, and again whenever a source file has changed.
//!
//! Changes are found by looking at modification times: a few hundred files twice a second cost nothing, need nothing
//! installed, and work on every file system. A build that fails leaves the running service alone.

use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::files;

/// How often the files are looked at.
const POLL: Duration = Duration::from_millis(500);
/// What, when changed, needs a new build.
const WATCHED: &[&str] = &["rs", "toml", "lock"];

pub(crate) fn run(root: &Path, serve: &[String]) -> Result<ExitCode> {
    let mut service: Option<Child> = None;
    loop {
        let seen = newest(root)?;
        if build(root)? {
            if let Some(old) = service.take() {
                stop(old)?;
            }
            service = Some(start(root, serve)?);
        } else {
            eprintln!("dev: the build failed; the service stays as it was");
        }
        while newest(root)? == seen {
            sleep(POLL);
            if let Some(status) = service.as_mut().map(Child::try_wait).transpose()?.flatten() {
                eprintln!("dev: the service ended ({status}); it starts again after the next change");
                service = None;
            }
        }
        eprintln!("dev: a source file changed");
    }
}

/// The latest modification and the number of files, so that a deletion shows too.
fn newest(root: &Path) -> Result<(usize, Option<SystemTime>)> {
    let mut watched = files(root)?;
    watched.retain(|file| file.extension().is_some_and(|kind| WATCHED.iter().any(|known| kind == *known)));
    let times = watched.iter().filter_map(|file| root.join(file).metadata().ok()?.modified().ok());
    Ok((watched.len(), times.max()))
}

fn build(root: &Path) -> Result<bool> {
    let status = Command::new("cargo")
        .args(["build", "--package", "mhnos-runtime"])
        .current_dir(root)
        .status()
        .context("cargo build")?;
    Ok(status.success())
}

fn start(root: &Path, serve: &[String]) -> Result<Child> {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let binary = root.join(target).join("debug/mhnos-runtime");
    let child = Command::new(&binary).arg("serve").args(serve).current_dir(root).spawn();
    child.with_context(|| format!("starting {}", binary.display()))
}

/// As a user would: SIGTERM, and it drains.
fn stop(mut child: Child) -> Result<()> {
    if child.try_wait()?.is_none() {
        kill_process(Pid::from_child(&child), Signal::TERM).context("stopping the service")?;
        child.wait().context("waiting for the service")?;
    }
    Ok(())
}
