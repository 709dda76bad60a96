//! The one entrance: [`recipe`].

use std::time::Duration;

use mhnos_sandbox::{Launch, Stdio, WindowSize};

use crate::{ProcessType, RecipeError, ServiceEnvironment, Toolbox};

/// What a client asked for, paths already resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpawnInput {
    /// `command`, after [`ProcessType::command_role`] said what it is.
    pub command: Command,
    /// `args`, verbatim.
    pub args: Vec<String>,
    /// `options.env`, in order.
    pub env: Vec<(String, String)>,
    /// `options.cwd` as processes see it: absolute, an existing directory. The workspace if none was given.
    pub cwd: String,
    /// `options.pty`.
    pub pty: Pty,
    /// `options.stdin`: whether stdin is a pipe (`true`, the default) or `/dev/null`.
    pub stdin: bool,
    /// The memory limit that will be in force for this process, in bytes.
    pub memory: u64,
}

/// The `command` of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// None was given.
    Absent,
    /// A flag, a subcommand, or (shell) a program of the host.
    Word(String),
    /// An existing file or directory in the workspace: its absolute path as processes see it.
    Path(String),
}

/// The `options.pty` of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pty {
    /// Not said: a terminal for `shell`, pipes for the others.
    Default,
    /// `false`: pipes.
    Off,
    /// `true` or a size.
    On(WindowSize),
}

/// What recipes need to know of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The workspace's absolute path as processes see it.
    pub workspace: String,
    /// `MHNOS_PATH`: becomes the programs' `PATH`.
    pub path: String,
    /// The part of the service's own environment that programs get.
    pub service: ServiceEnvironment,
    /// `MHNOS_KILL_GRACE`.
    pub kill_grace: Duration,
    /// `MHNOS_ALLOW_OPENCLAW`.
    pub allow_openclaw: bool,
    /// `MHNOS_SANDBOX`: strict, relaxed or none.
    pub sandbox_mode: &'static str,
}

/// Reads a module of a worker; implemented over the confined workspace.
pub trait Sources {
    /// The content of the regular file at this absolute path (as processes see it), at most `max` bytes of
    /// it, or a text that says why not. `Ok(None)`: no file is there.
    fn read(&self, path: &str, max: usize) -> Result<Option<Vec<u8>>, String>;
}

/// How to start and stop a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// What to execute.
    pub launch: Launch,
    /// How its descriptors 0, 1, 2 are connected.
    pub stdio: Stdio,
    /// Between the signal that asks it to end and SIGKILL.
    pub grace: Duration,
    /// What arrives on the `Report` descriptor of `launch`, if there is one.
    pub report: Option<ReportKind>,
}

/// The language of a program's `Report` descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportKind {
    /// workerd's `--control-fd`: lines for [`parse_report`](crate::parse_report).
    Workerd,
}

/// Turns a request into a recipe, or says what is wrong with it or missing on this machine.
pub fn recipe(
    process_type: ProcessType,
    input: &SpawnInput,
    toolbox: &Toolbox,
    context: &Context,
    sources: &dyn Sources,
) -> Result<Recipe, RecipeError> {
    let _ = (process_type, input, toolbox, context, sources);
    todo!()
}
