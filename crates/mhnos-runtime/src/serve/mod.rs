//! `serve`: checks everything, binds, gives up root, and becomes the keeper.
//!
//! The order matters. Settings are checked before anything is touched; the port is bound before the
//! workspace is handed over, so that a second service started by mistake changes nothing; root goes before
//! the first sandbox is built. Secrets are read first of all, and by another program image than the one that
//! goes on (see `again`).

mod again;
mod audit;
pub(crate) mod descriptors;
mod listen;
pub(crate) mod place;
mod service_manager;

use std::{io::Write, os::fd::OwnedFd, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::ArgMatches;
use mhnos_keeper::{BridgeCommand, ProgramPlace, Settings};
use mhnos_sandbox::Limits;
use mhnos_server::{
    Secrets,
    config::{Config, Mistake, Warning},
};

use crate::{cli, logging};
pub(crate) use again::keep_out_others;

/// How long after the grace period a drain may still take.
const DRAIN_MARGIN: Duration = Duration::from_secs(5);

/// Exit status for settings that are not accepted.
const BAD_SETTINGS: u8 = 2;

/// Serves until asked to stop. Exit status 0 after a stop, 1 after a failure, 2 for bad settings.
pub(crate) fn run(arguments: &ArgMatches) -> ExitCode {
    let flags = cli::flags(arguments);
    let (config, warnings) = match Config::parse(std::env::vars_os(), &flags) {
        Ok(parsed) => parsed,
        Err(mistakes) => return not_accepted(&mistakes),
    };
    if let Err(mistake) = place::check(&config.workspace) {
        eprintln!("mhnos-runtime: the settings are not accepted:\n  {mistake}");
        return ExitCode::from(BAD_SETTINGS);
    }
    let sealed = match arguments.get_one::<i32>("secrets") {
        Some(number) => again::sealed(*number),
        None => match Secrets::gather(&config) {
            Err(mistakes) => return not_accepted(&mistakes),
            Ok(_) if arguments.get_flag("check") => return print_effective(&config, &warnings),
            Ok(secrets) if secrets.is_empty() => None,
            Ok(secrets) => {
                let error = again::without_secrets(&secrets);
                eprintln!("mhnos-runtime: cannot put the tokens and keys out of reach: {error:#}");
                return ExitCode::FAILURE;
            }
        },
    };
    logging::start(&config);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    descriptors::raise(&config);
    match again::keep_out_others().and_then(|()| keep(&config, &flags, sealed)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn not_accepted(mistakes: &[Mistake]) -> ExitCode {
    eprintln!("mhnos-runtime: the settings are not accepted:");
    for mistake in mistakes {
        eprintln!("  {mistake}");
    }
    ExitCode::from(BAD_SETTINGS)
}

fn print_effective(config: &Config, warnings: &[Warning]) -> ExitCode {
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    for (variable, value) in config.effective() {
        println!("{variable}={value}");
    }
    ExitCode::SUCCESS
}

fn keep(config: &Config, flags: &[(String, String)], sealed: Option<OwnedFd>) -> anyhow::Result<()> {
    let program = std::fs::File::open("/proc/self/exe").context("cannot open this program")?;
    let path = std::fs::read_link("/proc/self/exe").context("cannot find this program")?;
    let place = ProgramPlace::of(&path).context("cannot open this program's directory")?;
    let manager = service_manager::of(std::env::vars_os())?;
    let (listeners, port) = listen::bind(&config.hosts, config.port)?;
    let audit = audit::open(config)?;
    let taken = place::take(config, port, audit.as_ref().and_then(audit::Opened::made))?;
    if config.sandbox == mhnos_sandbox::Mode::None {
        tracing::warn!("MHNOS_SANDBOX=none: programs are NOT isolated from this machine or from each other");
    }
    let count = listeners.len();
    let mut fds: Vec<OwnedFd> = vec![taken.dir];
    fds.extend(listeners);
    let secrets = sealed.is_some();
    fds.extend(sealed);
    fds.extend(audit.into_iter().flat_map(|opened| opened.file.into_fds()));
    let workspace = taken.policy.workspace.source.inside.to_string_lossy().into_owned();
    let bridge = BridgeCommand {
        program: program.into(),
        number: 0,
        place,
        argv: bridge_arguments(flags, &workspace, port, count, secrets),
        env: environment(),
        files_as: None,
        fds,
    };
    let limits =
        Limits { memory: config.max_memory, pids: config.max_pids, cpu_millis: config.max_cpu_millis };
    let grace = config.kill_grace.max(mhnos_server::LONGEST_GRACE);
    let addresses = listen::urls(&config.hosts, port);
    let settings = Settings {
        policy: taken.policy,
        floor: config.sandbox_min_tier,
        reserve: taken.reserve,
        cgroups: taken.cgroups,
        limits,
        log_bytes: config.output_log,
        bridge,
        drain_timeout: grace + DRAIN_MARGIN,
        service_manager: manager,
        on_ready: Some(Box::new(move || announce(&addresses))),
    };
    mhnos_keeper::run(settings).context("the service ends")
}

/// The readiness line, for people and for scripts that wait for it.
fn announce(addresses: &[String]) {
    let mut out = std::io::stdout().lock();
    // Whoever closed stdout does not want to know.
    let _ = writeln!(out, "listening on {}", addresses.join(" and ")).and_then(|()| out.flush());
}

/// The bridge gets the operator's flags, then what has been decided since: of two equal flags the last wins.
fn bridge_arguments(
    flags: &[(String, String)],
    workspace: &str,
    port: u16,
    count: usize,
    secrets: bool,
) -> Vec<String> {
    let mut argv = vec!["mhnos-runtime".to_owned(), "bridge".to_owned(), format!("--listeners={count}")];
    if secrets {
        argv.push("--secrets".to_owned());
    }
    argv.extend(flags.iter().map(|(flag, value)| format!("{flag}={value}")));
    argv.push(format!("--workspace={workspace}"));
    argv.push(format!("--runtime-port={port}"));
    argv
}

fn environment() -> Vec<Vec<u8>> {
    use std::os::unix::ffi::OsStringExt;
    std::env::vars_os()
        .filter(|(name, _)| !service_manager::VARIABLES.iter().any(|own| name == own))
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            name.into_vec()
        })
        .collect()
}
