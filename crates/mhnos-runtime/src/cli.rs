//! The command line. The flags of `serve` come from the table of settings, so that a setting is described
//! in one place.

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use mhnos_server::config::{SETTINGS, Setting};

/// The whole command line.
pub(crate) fn command() -> Command {
    Command::new("mhnos-runtime")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Runs Node.js, Python, workerd, shells and OpenClaw for MHNOS Web OS, isolated.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            with_settings(Command::new("serve").about("Serve WebSocket clients until SIGTERM or SIGINT"))
                .arg(Arg::new("secrets").long("secrets").hide(true).value_parser(value_parser!(i32)))
                .arg(
                    Arg::new("check")
                        .long("check")
                        .action(ArgAction::SetTrue)
                        .help("Check the settings, print the effective ones and exit"),
                ),
        )
        .subcommand(
            with_settings(
                Command::new("doctor").about(
                    "Say what isolation this host gives, layer by layer, and what would give the rest",
                ),
            )
            .arg(
                Arg::new("origin")
                    .long("origin")
                    .value_name("ORIGIN")
                    .conflicts_with("json")
                    .help("Say instead whether pages of this origin may connect, what their browser does, and what would help"),
            )
            .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("As one JSON object")),
        )
        .subcommand(with_settings(Command::new("health").about(
            "Ask the service of these settings how it is: exit status 0 and its answer if it is well, else 1",
        )))
        .subcommand(
            Command::new("generate")
                .hide(true)
                .about("Print what packages install beside the program")
                .arg(Arg::new("what").required(true).value_parser(["man", "bash", "zsh", "fish"])),
        )
        .subcommand(
            with_settings(Command::new("bridge").hide(true))
                .arg(Arg::new("listeners").long("listeners").value_parser(value_parser!(i32)).required(true))
                .arg(Arg::new("secrets").long("secrets").action(ArgAction::SetTrue))
                .arg(Arg::new("files-as").long("files-as"))
                .arg(Arg::new("program").long("program").value_parser(value_parser!(u32)).required(true))
                .arg(Arg::new("channel").long("channel").value_parser(value_parser!(u32)).required(true)),
        )
        .subcommand(
            Command::new("upgrade")
                .about("Replace the bridge of a running service by the program that is installed now; processes go on")
                .arg(
                    Arg::new("pid")
                        .long("pid")
                        .value_name("PID")
                        .value_parser(value_parser!(i32))
                        .help("The service's process, where more than one is running"),
                ),
        )
}

fn with_settings(command: Command) -> Command {
    SETTINGS.iter().fold(command, |command, setting| command.arg(flag(setting)))
}

fn flag(setting: &Setting) -> Arg {
    let default = if setting.default.is_empty() { "none" } else { setting.default };
    let arg = Arg::new(setting.variable)
        .long(setting.flag().trim_start_matches('-').to_owned())
        .value_name("VALUE")
        .action(ArgAction::Append)
        .hide(setting.is_secret())
        .help(format!("{} [{}, default: {default}]", setting.about.replace('`', ""), setting.variable));
    if setting.accepts == "true or false" {
        arg.num_args(0..=1).default_missing_value("true")
    } else {
        arg.allow_hyphen_values(true)
    }
}

/// The settings given as flags, as `Config::parse` takes them.
pub(crate) fn flags(arguments: &ArgMatches) -> Vec<(String, String)> {
    let given = |setting: &'static Setting| {
        let values = arguments.get_many::<String>(setting.variable).into_iter().flatten();
        values.map(|value| (setting.flag(), value.clone()))
    };
    SETTINGS.iter().flat_map(given).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }

    #[test]
    fn flags_reach_the_configuration() {
        let matches = super::command()
            .try_get_matches_from(["mhnos-runtime", "serve", "--allow-openclaw", "--max-memory", "2g"])
            .expect("accepted");
        let (_, serve) = matches.subcommand().expect("serve");
        let flags = super::flags(serve);
        assert!(flags.contains(&("--max-memory".into(), "2g".into())), "{flags:?}");
        assert!(flags.contains(&("--allow-openclaw".into(), "true".into())), "{flags:?}");
    }
}
