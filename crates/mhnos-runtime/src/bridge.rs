//! The bridge: started by the keeper with the same settings, and the descriptors it works on.

use std::{os::fd::OwnedFd, process::ExitCode};

use anyhow::Context;
use clap::ArgMatches;
use mhnos_keeper::{BRIDGE_CHANNEL_FD, channel::CHANNEL_VERSION};
use mhnos_sandbox::{
    stage::{self, Account},
    sys,
};
use mhnos_server::{
    Secrets,
    audit::{AuditFile, Destination},
    config::{AuditLog, Config},
};

use crate::{cli, logging, serve::keep_out_others};

/// Turns of tasks after which a busy thread asks the kernel for news (tokio's own is 61). Turns take up to some ten
/// microseconds, and who sends a short request would wait for as many; asking takes less than one.
const EVENT_INTERVAL: u32 = 7;

/// Runs the bridge until it is drained or loses its keeper.
pub(crate) fn run(arguments: &ArgMatches) -> ExitCode {
    let Ok((config, _)) = Config::parse(std::env::vars_os(), &cli::flags(arguments)) else {
        eprintln!("the bridge is started by `mhnos-runtime serve`, not by hand");
        return ExitCode::from(2);
    };
    if arguments.get_one::<u32>("channel") != Some(&CHANNEL_VERSION) {
        eprintln!(
            "this program is too new or too old for the service that runs; restart the service to use it"
        );
        return ExitCode::from(2);
    }
    let programs = match arguments.get_one::<String>("files-as").map(|account| files_as(account)).transpose()
    {
        Ok(programs) => programs,
        Err(error) => {
            eprintln!("cannot reach files as the programs' user: {error}");
            return ExitCode::FAILURE;
        }
    };
    let listeners = arguments.get_one::<i32>("listeners").copied().unwrap_or(0);
    let secrets = arguments.get_flag("secrets");
    let audit = if matches!(config.audit_log, AuditLog::File(_)) { 2 } else { 0 };
    let after = (BRIDGE_CHANNEL_FD + 2 + i32::from(secrets) + audit).saturating_add(listeners);
    let inherited = (BRIDGE_CHANNEL_FD..after).map(sys::take_inherited);
    let Some(mut inherited) = inherited.collect::<Option<Vec<OwnedFd>>>().filter(|fds| fds.len() > 2) else {
        eprintln!("the bridge is started by `mhnos-runtime serve`, not by hand");
        return ExitCode::from(2);
    };
    logging::start(&config);
    if let Err(error) = keep_out_others() {
        tracing::error!("{error:#}");
        return ExitCode::FAILURE;
    }
    let audit = audit_destination(&config, &mut inherited);
    let sealed = if secrets { inherited.pop() } else { None };
    let secrets = match sealed.map(Secrets::open).transpose() {
        Ok(secrets) => secrets.unwrap_or_default(),
        Err(error) => {
            tracing::error!(%error, "cannot read what the service was started with");
            return ExitCode::FAILURE;
        }
    };
    let listeners = inherited.split_off(2);
    let (Some(workspace), Some(channel)) = (inherited.pop(), inherited.pop()) else {
        unreachable!("split off above the first two")
    };
    sys::share_one_heap();
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    let runtime = match threads.event_interval(EVENT_INTERVAL).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the bridge's threads");
            return ExitCode::FAILURE;
        }
    };
    let bridge = mhnos_server::Bridge { channel, listeners, workspace, audit, programs, secrets, config };
    match runtime.block_on(mhnos_server::run(bridge)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %chain(&error), "the bridge ends");
            // What reads or writes files now must not keep the next bridge from taking over.
            runtime.shutdown_background();
            ExitCode::FAILURE
        }
    }
}

/// The audit log's directory and file are the last two descriptors.
fn audit_destination(config: &Config, inherited: &mut Vec<OwnedFd>) -> Option<Destination> {
    match &config.audit_log {
        AuditLog::Off => None,
        AuditLog::Stdout => Some(Destination::Stdout),
        AuditLog::File(path) => {
            let (file, dir) = (inherited.pop()?, inherited.pop()?);
            AuditFile::inherited(path, dir, file).map(Destination::File)
        }
    }
}

/// Where programs run as a user of their own, their files are reached as that user.
fn files_as(account: &str) -> anyhow::Result<u32> {
    let (uid, gid) = account.split_once(':').context("expected UID:GID")?;
    let account = Account { uid: uid.parse()?, gid: gid.parse()? };
    stage::files_as(account)?;
    Ok(account.uid)
}

/// An error with its causes, for the log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
