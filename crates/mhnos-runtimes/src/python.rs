//! `python`: a script, a directory or archive with a `__main__`, or the interpreter's own flags (`-c`, `-m`, `-`
//! for a program on stdin).
//!
//! PYTHONUNBUFFERED makes output visible as it is printed; on a pipe Python would hold it back in blocks of
//! 8 KiB. As a variable and not as `-u`, so that Python programs started by this one are seen too, and a client
//! can take it back. `argv[0]` is the absolute path: Python looks for its own installation by it, and would
//! search a `PATH` that the client may have changed.

use crate::{Command, ProcessType, RecipeError, SpawnInput, Tool, Toolbox, recipe::Start};

pub(crate) fn start(input: &SpawnInput, toolbox: &Toolbox, on_terminal: bool) -> Result<Start, RecipeError> {
    let (program, _) = toolbox.require(Tool::Python)?;
    let mut argv = vec![program.to_owned()];
    match &input.command {
        Command::Word(word) | Command::Path(word) => argv.push(word.clone()),
        Command::Absent if on_terminal => {}
        Command::Absent => {
            return Err(RecipeError::CommandMissing {
                process_type: ProcessType::Python,
                needed: "a script, or a flag such as -c or -m",
            });
        }
    }
    argv.extend(input.args.iter().cloned());
    let env = vec![("PYTHONUNBUFFERED".to_owned(), "1".to_owned())];
    Ok(Start { program: program.to_owned(), argv, env, ..Start::default() })
}
