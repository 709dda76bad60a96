//! `node`: a script, or the interpreter's own flags (`-e`, `-p`, `--test`, `-` for a program on stdin).
//!
//! V8's heap limit comes from the process's memory limit, so that a program that needs more gets Node's own
//! "heap out of memory" with a stack trace instead of being killed. It is an argument, before all others, so
//! that the same flag among the request's wins. It is not put into NODE_OPTIONS, which programs see and
//! would inherit: a Node started by the program sizes its heap from the memory limit by itself where the
//! kernel tells it (cgroup), and is held by the limit in any case.
//!
//! Without a command there is nothing to run: an error on pipes, where Node would wait for a program on stdin
//! for ever; on a terminal it is the REPL.

use crate::{Command, ProcessType, RecipeError, SpawnInput, Tool, Toolbox, limits, recipe::Start};

pub(crate) fn start(input: &SpawnInput, toolbox: &Toolbox, on_terminal: bool) -> Result<Start, RecipeError> {
    let (program, _) = toolbox.require(Tool::Node)?;
    let mut argv = vec!["node".to_owned(), heap_flag(input.memory)];
    match &input.command {
        Command::Word(word) | Command::Path(word) => argv.push(word.clone()),
        Command::Absent if on_terminal => {}
        Command::Absent => {
            return Err(RecipeError::CommandMissing {
                process_type: ProcessType::Node,
                needed: "a script, or a flag such as -e",
            });
        }
    }
    argv.extend(input.args.iter().cloned());
    Ok(Start { program: program.to_owned(), argv, ..Start::default() })
}

/// The flag for a process that may use so many bytes.
pub(crate) fn heap_flag(memory: u64) -> String {
    let memory = memory / (1024 * 1024);
    // What Node.js needs besides grows with the heap, up to a bound.
    let beside_small = memory.saturating_sub(limits::NODE_LEAST_MIB) * 2 / 3;
    let beside_large = memory.saturating_sub(limits::NODE_MOST_MIB);
    let heap = beside_small.max(beside_large).min(memory * limits::HEAP_PERCENT / 100);
    format!("--max-old-space-size={}", heap.max(limits::MIN_HEAP_MIB))
}
