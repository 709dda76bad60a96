//! `shell`: the shell that `command` names, with `args` (`-c "…"`, `-l`); by default the one `SHELL` names, then
//! bash. On a terminal unless the request says `pty: false`.
//!
//! A command such as `/bin/bash` or `bash` is a program of the host as processes see it and not a path in the
//! workspace; a flag goes to the default shell. `argv[0]` is what was asked for, as a login would do it, so
//! that the shell's own messages read as usual.

use crate::{Command, Context, RecipeError, SpawnInput, Tool, Toolbox, recipe::Start};

/// What system accounts have as their shell: nothing to start.
const NO_SHELLS: [&str; 4] = ["nologin", "false", "true", "sync"];

pub(crate) fn start(input: &SpawnInput, toolbox: &Toolbox, context: &Context) -> Result<Start, RecipeError> {
    let (program, name, flag) = match &input.command {
        Command::Word(word) if word.starts_with('-') => {
            let (program, name) = default_shell(input, toolbox, context)?;
            (program, name, Some(word.clone()))
        }
        Command::Word(program) | Command::Path(program) => (program.clone(), program.clone(), None),
        Command::Absent => {
            let (program, name) = default_shell(input, toolbox, context)?;
            (program, name, None)
        }
    };
    let argv = std::iter::once(name).chain(flag).chain(input.args.iter().cloned()).collect();
    // What programs such as editors start when asked for a shell; a bare name would not be found by them.
    let env = program.starts_with('/').then(|| ("SHELL".to_owned(), program.clone()));
    Ok(Start { program, argv, env: env.into_iter().collect(), ..Start::default() })
}

/// Path and `argv[0]`.
fn default_shell(
    input: &SpawnInput,
    toolbox: &Toolbox,
    context: &Context,
) -> Result<(String, String), RecipeError> {
    let asked = input.env.iter().rev().find(|(name, _)| name == "SHELL").map(|(_, value)| value);
    let path = match [asked, context.service.shell.as_ref()].into_iter().flatten().find(|path| usable(path)) {
        Some(path) => path.clone(),
        None => toolbox.require(Tool::Bash)?.0.to_owned(),
    };
    let name = file_name(&path).to_owned();
    Ok((path, name))
}

fn usable(path: &str) -> bool {
    path.starts_with('/') && !NO_SHELLS.contains(&file_name(path))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
