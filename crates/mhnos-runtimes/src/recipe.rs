//! The one entrance: [`recipe`].

use std::time::Duration;

use mhnos_sandbox::{ExtraFd, Launch, Stdio, WindowSize};

use crate::{
    ProcessType, RecipeError, ServiceEnvironment, Toolbox, environment, node, openclaw, python, shell,
    workerd,
};

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
    /// Where programs find the proxy, if what they reach is restricted.
    pub proxy: Option<Proxy>,
}

/// A proxy on the programs' loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Where.
    pub port: u16,
    /// What connects to the usual ports without asking for it is caught.
    pub catches: bool,
}

/// Reads a module of a worker; implemented over the confined workspace.
pub trait Sources {
    /// The content of the regular file at this absolute path (as processes see it, always beneath
    /// [`Context::workspace`]), or a text that says why not: larger than `max` bytes, leads out, a FIFO.
    /// `Ok(None)`: no regular file is there (nothing, or a directory).
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
    check_text(input)?;
    let stdio = stdio(process_type, input)?;
    let on_terminal = matches!(stdio, Stdio::Pty(_));
    let start = match process_type {
        ProcessType::Node => node::start(input, toolbox, on_terminal)?,
        ProcessType::Python => python::start(input, toolbox, on_terminal)?,
        ProcessType::Shell => shell::start(input, toolbox, context)?,
        ProcessType::Workerd => workerd::start(input, toolbox, context, sources)?,
        ProcessType::OpenClaw => openclaw::start(input, toolbox, context)?,
    };
    let mut env = environment::base(context);
    environment::set(&mut env, start.env);
    environment::set(&mut env, input.env.iter().cloned());
    environment::set(&mut env, start.fixed_env);
    Ok(Recipe {
        launch: Launch {
            program: start.program,
            argv: start.argv,
            env,
            cwd: input.cwd.clone(),
            extra_fds: start.extra_fds,
        },
        stdio,
        grace: start.least_grace.max(context.kill_grace),
        report: start.report,
    })
}

/// The part of a recipe that is a process type's own.
#[derive(Debug, Default)]
pub(crate) struct Start {
    pub(crate) program: String,
    pub(crate) argv: Vec<String>,
    /// On top of the base environment, below `options.env`.
    pub(crate) env: Vec<(String, String)>,
    /// On top of `options.env`.
    pub(crate) fixed_env: Vec<(String, String)>,
    pub(crate) extra_fds: Vec<ExtraFd>,
    pub(crate) least_grace: Duration,
    pub(crate) report: Option<ReportKind>,
}

fn check_text(input: &SpawnInput) -> Result<(), RecipeError> {
    let nul = |what: String| Err(RecipeError::Nul { what });
    match &input.command {
        Command::Word(text) | Command::Path(text) if text.contains('\0') => return nul("command".to_owned()),
        _ => {}
    }
    if let Some(index) = input.args.iter().position(|arg| arg.contains('\0')) {
        return nul(format!("args[{index}]"));
    }
    environment::check(&input.env)
}

fn stdio(process_type: ProcessType, input: &SpawnInput) -> Result<Stdio, RecipeError> {
    let size = match (input.pty, process_type) {
        (Pty::On(size), _) => Some(size),
        (Pty::Default, ProcessType::Shell) => Some(WindowSize::DEFAULT),
        (Pty::Default | Pty::Off, _) => None,
    };
    match size {
        Some(_) if !input.stdin => Err(RecipeError::StdinOfTerminal),
        Some(size) => Ok(Stdio::Pty(size)),
        None => Ok(Stdio::Pipes { stdin: input.stdin }),
    }
}
