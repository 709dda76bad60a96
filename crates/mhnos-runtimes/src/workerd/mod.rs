//! `workerd`: a `.capnp` configuration as it is, or a worker's source file for which one is made.
//!
//! A configuration is served from where it lies, because its `embed`s are relative to it; `args` go to
//! `workerd serve`. A source file (`.js`, `.mjs`, `.ts`, `.mts`) gets a configuration in memory with one socket
//! on the sandbox's loopback, the modules it imports ([`modules`]), and the variables of `options.env` as text
//! bindings, since a worker has no other view of its environment. What workerd really listens on comes back
//! over `--control-fd` ([`parse_report`](crate::parse_report)).
//!
//! TypeScript is stripped by workerd itself (`typescript_strip_types`), as Node strips it: types are erased,
//! `enum`s and parameter properties are an error that says so. Transpiling here was tried (oxc: 109 crates,
//! over a minute of compilation) and refused for another reason: every such parser is recursive, a page of
//! nested brackets overflows its stack, and in the bridge that would end everybody's connection; in workerd,
//! behind the sandbox's walls, it ends that worker.

mod arguments;
mod configuration;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod modules;

use mhnos_sandbox::{ExtraFd, ExtraFdKind};

use self::{arguments::Arguments, configuration::Worker, modules::Script};
use crate::{
    Command, Context, ProcessType, RecipeError, ReportKind, Sources, SpawnInput, Tool, Toolbox, recipe::Start,
};

/// Where workerd reports what it listens on.
const CONTROL_FD: u32 = 3;
/// Where a generated configuration is read from.
const CONFIGURATION_FD: u32 = 4;

pub(crate) fn start(
    input: &SpawnInput,
    toolbox: &Toolbox,
    context: &Context,
    sources: &dyn Sources,
) -> Result<Start, RecipeError> {
    let (program, version) = toolbox.require(Tool::Workerd)?;
    let control = format!("--control-fd={CONTROL_FD}");
    let mut extra_fds = vec![ExtraFd { fd: CONTROL_FD, kind: ExtraFdKind::Report }];
    let mut argv = vec!["workerd".to_owned()];
    match &input.command {
        Command::Absent => {
            return Err(RecipeError::CommandMissing {
                process_type: ProcessType::Workerd,
                needed: "a .capnp configuration, or a worker's .js, .mjs or .ts source",
            });
        }
        Command::Word(flag) => {
            argv.push(flag.clone());
            argv.extend(input.args.iter().cloned());
            return Ok(Start { program: program.to_owned(), argv, ..Start::default() });
        }
        Command::Path(path) if has_extension(path, "capnp") => {
            argv.extend(["serve".to_owned(), control, path.clone()]);
            argv.extend(input.args.iter().filter(|arg| !arg.is_empty()).cloned());
        }
        Command::Path(path) => {
            let arguments = Arguments::parse(&input.args, &input.env, version)?;
            let script = Script::collect(path, &context.workspace, sources)?;
            let variables = variables(&input.env);
            let worker = Worker { script: &script, arguments: &arguments, variables: &variables };
            let kind = ExtraFdKind::Content(worker.configuration().into_bytes());
            extra_fds.push(ExtraFd { fd: CONFIGURATION_FD, kind });
            argv.extend(["serve".to_owned(), control]);
            argv.extend(arguments.flags.iter().cloned());
            if script.typescript {
                argv.push("--experimental".to_owned());
            }
            argv.push(format!("/proc/self/fd/{CONFIGURATION_FD}"));
        }
    }
    Ok(Start {
        program: program.to_owned(),
        argv,
        extra_fds,
        report: Some(ReportKind::Workerd),
        ..Start::default()
    })
}

/// The names in `options.env`, each once.
fn variables(env: &[(String, String)]) -> Vec<&str> {
    let mut names = Vec::new();
    for (name, _) in env {
        if !names.contains(&name.as_str()) {
            names.push(name.as_str());
        }
    }
    names
}

fn has_extension(path: &str, extension: &str) -> bool {
    path.rsplit('/')
        .next()
        .and_then(|name| name.rsplit_once('.'))
        .is_some_and(|(_, found)| found == extension)
}
