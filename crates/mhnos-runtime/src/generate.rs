//! `generate`: the manual page and the completions of shells, from the same description of the command line that
//! parses it. For whoever builds a package; hidden from the help.

use std::{io, process::ExitCode};

use clap::{ArgMatches, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli;

const NAME: &str = "mhnos-runtime";

/// Prints what was asked for.
pub(crate) fn run(arguments: &ArgMatches) -> ExitCode {
    let what = arguments.get_one::<String>("what").map_or("", String::as_str);
    let mut text = Vec::new();
    let written = match what {
        "man" => manual(&mut text),
        "zsh" => complete(Shell::Zsh, &mut text),
        "fish" => complete(Shell::Fish, &mut text),
        _ => complete(Shell::Bash, &mut text),
    };
    match written.and_then(|()| io::Write::write_all(&mut io::stdout().lock(), &text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{NAME}: cannot write: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as the manual, which can fail")]
fn complete(shell: Shell, text: &mut Vec<u8>) -> io::Result<()> {
    clap_complete::generate(shell, &mut cli::command(), NAME, text);
    Ok(())
}

/// One page for all: the program, then a section for each command with its options.
fn manual(text: &mut Vec<u8>) -> io::Result<()> {
    let command = cli::command();
    let whole = Man::new(command.clone());
    whole.render_title(text)?;
    whole.render_name_section(text)?;
    whole.render_synopsis_section(text)?;
    whole.render_description_section(text)?;
    for part in command.get_subcommands().filter(|part| !part.is_hide_set()) {
        let name = part.get_name();
        text.extend(format!(".SH \"{}\"\n", name.to_uppercase()).bytes());
        let about = part.get_about().map(ToString::to_string).unwrap_or_default();
        text.extend(format!("{about}\n").bytes());
        options(part, text)?;
    }
    text.extend(
        ".SH \"EXIT STATUS\"\n0 for success or a stop as asked, 1 for a failure, 2 for settings that are not accepted.\n\
         .PP\ndoctor: 1 if something is missing (with \\-\\-origin: if some browser stands in the way), 2 if a service would\n\
         not start (if it would refuse the page). health: 1 for whatever is not well, settings included.\n\
         .SH FILES\n/etc/mhnos/runtime.env: settings of the system service, one VARIABLE=value a line\n"
            .bytes(),
    );
    Ok(())
}

fn options(part: &Command, text: &mut Vec<u8>) -> io::Result<()> {
    let mut rendered = Vec::new();
    Man::new(part.clone()).render_options_section(&mut rendered)?;
    let rendered = String::from_utf8_lossy(&rendered);
    let lines = rendered.lines().filter(|line| !line.starts_with(".SH"));
    text.extend(lines.flat_map(|line| [line, "\n"]).flat_map(str::bytes));
    Ok(())
}

#[cfg(test)]
mod tests {
    use mhnos_server::config::SETTINGS;

    #[test]
    fn the_manual_has_every_command_and_setting() {
        let mut page = Vec::new();
        super::manual(&mut page).expect("into memory");
        let page = String::from_utf8(page).expect("text").replace("\\-", "-");
        for setting in SETTINGS {
            assert!(page.contains(&setting.flag()), "{}", setting.flag());
        }
        for command in ["SERVE", "DOCTOR", "HEALTH", "UPGRADE"] {
            assert!(page.contains(&format!(".SH \"{command}\"")), "{command}");
        }
        assert!(!page.contains("BRIDGE"), "{page}");
    }
}
