//! `mhnos-runtime`: the one binary. `serve` is the keeper, which starts the same program again as the
//! bridge; the other commands are clients of a running service.

mod bridge;
mod cli;
mod doctor;
mod generate;
mod health;
mod logging;
mod serve;
mod upgrade;

use std::process::ExitCode;

fn main() -> ExitCode {
    let matches = cli::command().get_matches();
    match matches.subcommand() {
        Some(("serve", arguments)) => serve::run(arguments),
        Some(("doctor", arguments)) => doctor::run(arguments),
        Some(("health", arguments)) => health::run(arguments),
        Some(("generate", arguments)) => generate::run(arguments),
        Some(("bridge", arguments)) => bridge::run(arguments),
        Some(("upgrade", arguments)) => upgrade::run(arguments),
        _ => unreachable!("clap asks for a subcommand"),
    }
}
