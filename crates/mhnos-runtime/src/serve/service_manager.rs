//! Whether a service manager wants to be told how the service goes: its variables, as sd_notify(3) and
//! sd_watchdog_enabled(3) say. They are the keeper's own; a bridge does not get them.

use std::{ffi::OsString, os::unix::ffi::OsStrExt, time::Duration};

use anyhow::Context;
use mhnos_keeper::ServiceManager;

const SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// What a bridge's environment is without.
pub(super) const VARIABLES: [&str; 3] = [SOCKET, WATCHDOG, WATCHDOG_PID];

/// Connects to the manager that this environment names.
pub(super) fn of(env: impl Iterator<Item = (OsString, OsString)>) -> anyhow::Result<Option<ServiceManager>> {
    let own: Vec<(OsString, OsString)> =
        env.filter(|(name, _)| VARIABLES.iter().any(|own| name == own)).collect();
    let value = |wanted: &str| own.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
    let number = |name: &str| value(name).and_then(|text| text.to_str()?.parse::<u64>().ok());
    let Some(address) = value(SOCKET).filter(|address| !address.is_empty()) else { return Ok(None) };
    // The watchdog may be meant for another process that shares the environment.
    let ours = number(WATCHDOG_PID).is_none_or(|pid| pid == u64::from(std::process::id()));
    let watchdog = number(WATCHDOG).filter(|micros| ours && *micros > 0).map(Duration::from_micros);
    let manager = ServiceManager::connect(address.as_bytes(), watchdog)
        .with_context(|| format!("cannot reach the service manager at {SOCKET}={}", address.display()))?;
    Ok(Some(manager))
}
