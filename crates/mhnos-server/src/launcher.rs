//! From a `spawn` request to a running process: its paths are resolved in the workspace, the recipe of its
//! type makes a launch of it, and the keeper executes that. Whatever is wrong is told before anything starts.

use std::sync::{Arc, PoisonError};

use mhnos_process::{Info, Process, SpawnRequest};
use mhnos_protocol::{self as wire, ErrorCode, ErrorReply};
use mhnos_runtimes::{Command, CommandRole, ProcessType, Pty, Recipe, Sources, SpawnInput, Toolbox};
use mhnos_sandbox::{Limits, WindowSize};
use mhnos_workspace::{PathError, Resolved, Workspace};
use tokio::time::Instant;
use tracing::info;

use crate::{limits as bounds, service::Service, translate};

/// Starts what the request asks for.
///
/// # Cancel safety
/// The program may be started all the same; it is then listed like any other.
pub(crate) async fn launch(service: &Arc<Service>, spawn: &wire::Spawn) -> Result<Arc<Process>, ErrorReply> {
    let in_pace = service.spawns.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
    if !in_pace {
        let text = format!("More than {} spawns a second: wait a little", bounds::SPAWNS_PER_SECOND);
        return Err(ErrorReply::new(ErrorCode::TooManyRequests, text));
    }
    let toolbox = toolbox(service).await?;
    let limits = limits(service, &spawn.options.limits);
    let recipe = prepared(service, spawn, toolbox, limits).await.inspect_err(|error| {
        if error.code == ErrorCode::ProgramNotFound {
            service.missed.notify_one();
        }
    })?;
    let (program, cwd) = (recipe.launch.program.clone(), recipe.launch.cwd.clone());
    let options = &spawn.options;
    let request = SpawnRequest {
        launch: recipe.launch,
        stdio: recipe.stdio,
        isolation: translate::isolation_mode(options.isolation),
        limits,
        timeout: options.timeout,
        grace: Some(recipe.grace),
        info: Info {
            process_type: spawn.process_type.as_str().to_owned(),
            command: spawn.command.clone(),
            args: spawn.args.clone(),
            name: options.name.clone(),
            encoding: options.encoding.map(translate::encoding_from).unwrap_or_default(),
            extra: Vec::new(),
        },
        probe: false,
    };
    match service.processes.spawn(request).await {
        Ok(process) => {
            info!(
                pid = process.pid(),
                os_pid = process.os_pid(),
                kind = spawn.process_type.as_str(),
                "spawned"
            );
            Ok(process)
        }
        Err(error) => {
            info!(kind = spawn.process_type.as_str(), %error, "a spawn failed");
            Err(translate::spawn_error(&error, &program, &cwd))
        }
    }
}

/// The programs of this machine. Just after the start they are still being found, which has a deadline of
/// its own.
async fn toolbox(service: &Service) -> Result<Arc<Toolbox>, ErrorReply> {
    let mut toolbox = service.toolbox.clone();
    let found = toolbox.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
    found.ok_or_else(|| ErrorReply::new(ErrorCode::Internal, "The service is ending"))
}

/// What the client asked for, at most what the settings allow.
fn limits(service: &Service, asked: &wire::LimitsRequest) -> Limits {
    let config = &service.config;
    Limits {
        memory: asked.memory.map_or(config.max_memory, |memory| memory.min(config.max_memory)),
        pids: asked.pids.map_or(config.max_pids, |pids| pids.min(config.max_pids)),
        cpu_millis: asked.cpu_millis.map_or(config.max_cpu_millis, |cpu| cpu.min(config.max_cpu_millis)),
    }
}

/// Where a worker's files are read, on a thread that holds up nobody.
async fn prepared(
    service: &Arc<Service>,
    spawn: &wire::Spawn,
    toolbox: Arc<Toolbox>,
    limits: Limits,
) -> Result<Recipe, ErrorReply> {
    if spawn.process_type != wire::ProcessType::Workerd {
        return prepare(service, spawn, &toolbox, limits);
    }
    let (service, spawn) = (Arc::clone(service), spawn.clone());
    let preparing = tokio::task::spawn_blocking(move || prepare(&service, &spawn, &toolbox, limits));
    preparing.await.unwrap_or_else(|error| {
        let text = format!("The worker's files could not be read: {error}");
        Err(ErrorReply::new(ErrorCode::Internal, text))
    })
}

fn prepare(
    service: &Service,
    spawn: &wire::Spawn,
    toolbox: &Toolbox,
    limits: Limits,
) -> Result<Recipe, ErrorReply> {
    let process_type = translate::process_type(spawn.process_type);
    let options = &spawn.options;
    let workspace = &service.workspace;
    let cwd = workspace.resolve_directory(options.cwd.as_deref()).map_err(|error| named("cwd", &error))?;
    let input = SpawnInput {
        command: command(workspace, process_type, spawn.command.as_deref(), &cwd)?,
        args: spawn.args.clone(),
        env: options.env.clone(),
        cwd: cwd.visible,
        pty: match options.pty {
            None => Pty::Default,
            Some(wire::Pty::Off) => Pty::Off,
            Some(wire::Pty::DefaultSize) => Pty::On(WindowSize::DEFAULT),
            Some(wire::Pty::Size(size)) => Pty::On(WindowSize { cols: size.cols, rows: size.rows }),
        },
        stdin: options.stdin != Some(wire::StdinMode::Null),
        memory: limits.memory,
    };
    let sources = WorkspaceSources(workspace);
    mhnos_runtimes::recipe(process_type, &input, toolbox, &service.context, &sources)
        .map_err(|error| translate::recipe_error(&error))
}

fn command(
    workspace: &Workspace,
    process_type: ProcessType,
    command: Option<&str>,
    cwd: &Resolved,
) -> Result<Command, ErrorReply> {
    let text = command.unwrap_or_default();
    Ok(match process_type.command_role(command) {
        CommandRole::Absent => Command::Absent,
        CommandRole::Word => Command::Word(text.to_owned()),
        CommandRole::Path { extensions, directories } => {
            let found = workspace.resolve_script(text, cwd, extensions, directories);
            Command::Path(found.map_err(|error| named("command", &error))?.visible)
        }
    })
}

/// A path error that says which field of the request it is about.
fn named(field: &str, error: &PathError) -> ErrorReply {
    let mut reply = translate::path_error(error);
    reply.error = format!("{field}: {}", reply.error);
    reply
}

/// The modules of a worker, read through the confined workspace.
struct WorkspaceSources<'w>(&'w Workspace);

impl Sources for WorkspaceSources<'_> {
    fn read(&self, path: &str, max: usize) -> Result<Option<Vec<u8>>, String> {
        match self.0.read(path, &self.0.root(), max as u64) {
            Ok(content) => Ok(Some(content)),
            Err(PathError::Missing { .. } | PathError::IsADirectory { .. }) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}
