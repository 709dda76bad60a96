//! From the domain's values to the wire's. Domain types know nothing of JSON; this is the one place where
//! both are known, so that either can change without the other.

use std::borrow::Cow;

use mhnos_process::{
    End, ExitRecord, ExitStatus, Failure, Isolation, Member, Process, Reason, Scope, SpawnError, Stage,
    State, Stats, WriteError,
};
use mhnos_protocol::{self as wire, ErrorCode, ErrorReply};
use mhnos_runtimes::{Finding, ProcessType, RecipeError, Tool, Toolbox};
use mhnos_sandbox::{Enforcement, WindowSize};
use mhnos_workspace::PathError;

use crate::{audit, metrics::Label};

pub(crate) fn isolation(enforcement: &Enforcement) -> wire::Isolation {
    wire::Isolation {
        tier: enforcement.tier.as_str().to_owned(),
        layers: enforcement.layers.iter().map(|layer| layer.as_str().to_owned()).collect(),
    }
}

/// A start, for the audit log.
pub(crate) fn spawned<'a>(spawn: &'a wire::Spawn, process: &Process) -> audit::Event<'a> {
    audit::Event::Spawn {
        pid: process.pid(),
        process_type: spawn.process_type.as_str(),
        command: spawn.command.as_deref().map(Into::into),
        args: spawn.args.len(),
        name: spawn.options.name.as_deref().map(Into::into),
        tier: process.enforcement().tier.as_str(),
    }
}

/// A start that failed.
pub(crate) fn spawn_failed(spawn: &wire::Spawn, code: ErrorCode) -> audit::Event<'_> {
    audit::Event::SpawnFailed {
        process_type: spawn.process_type.as_str(),
        command: spawn.command.as_deref().map(Into::into),
        args: spawn.args.len(),
        code: code.name(),
    }
}

/// A signal that somebody asks for.
pub(crate) fn kill(kill: wire::Kill) -> audit::Event<'static> {
    let scope = match kill.scope {
        wire::Scope::Tree => "tree",
        wire::Scope::Leader => "leader",
    };
    audit::Event::Kill { pid: kill.pid, signal: kill.signal.name().into(), scope }
}

/// The end of a process, for the audit log.
pub(crate) fn ended<'a>(end: &End<'a>) -> audit::Event<'a> {
    let record = end.record;
    let (code, signal) = match record.status {
        ExitStatus::Code(code) => (Some(code), None),
        ExitStatus::Signal(number) => (None, Some(wire::Signal::name_of(number).into_owned())),
        ExitStatus::Lost => (None, None),
    };
    audit::Event::Exit {
        pid: end.process.pid(),
        process_type: end.process.info().process_type.as_str().into(),
        code,
        signal,
        reason: record.reason.as_str(),
        runtime_ms: record.runtime_ms,
        earlier: end.earlier,
    }
}

pub(crate) fn stats(stats: &Stats) -> wire::Stats {
    wire::Stats {
        total_spawned: stats.total_spawned,
        total_killed: stats.total_killed,
        active: stats.active as u64,
    }
}

pub(crate) fn window_size(size: WindowSize) -> wire::WindowSize {
    wire::WindowSize { cols: size.cols, rows: size.rows }
}

pub(crate) fn status(state: &State) -> wire::ProcessStatus {
    match state {
        State::Running => wire::ProcessStatus::Running,
        State::Stopping { .. } => wire::ProcessStatus::Stopping,
        State::Exited(_) => wire::ProcessStatus::Exited,
    }
}

fn reason(reason: Reason) -> wire::Reason {
    match reason {
        Reason::Exited => wire::Reason::Exited,
        Reason::Signaled => wire::Reason::Signaled,
        Reason::Killed => wire::Reason::Killed,
        Reason::Timeout => wire::Reason::Timeout,
        Reason::Memory => wire::Reason::Memory,
        Reason::Pids => wire::Reason::Pids,
        Reason::Quota => wire::Reason::Quota,
        Reason::Shutdown => wire::Reason::Shutdown,
        Reason::Lost => wire::Reason::Lost,
    }
}

fn code_and_signal(status: ExitStatus) -> (Option<i32>, Option<String>) {
    match status {
        ExitStatus::Code(code) => (Some(i32::from(code)), None),
        ExitStatus::Signal(number) => (None, Some(wire::Signal::name_of(number).into_owned())),
        ExitStatus::Lost => (None, None),
    }
}

fn usage(usage: mhnos_process::Usage) -> wire::Usage {
    wire::Usage { cpu_ms: usage.cpu_ms, max_rss_bytes: usage.max_rss, output_bytes: usage.output_bytes }
}

pub(crate) fn exit(pid: wire::Pid, record: &ExitRecord) -> wire::Event {
    let (code, signal) = code_and_signal(record.status);
    wire::Event::Exit(wire::Exit {
        code,
        signal,
        runtime: record.runtime_ms,
        pid,
        reason: reason(record.reason),
        seq: record.end_position,
        usage: usage(record.usage),
    })
}

fn exit_info(record: &ExitRecord) -> wire::ExitInfo {
    let (code, signal) = code_and_signal(record.status);
    wire::ExitInfo {
        code,
        signal,
        runtime: record.runtime_ms,
        reason: reason(record.reason),
        usage: usage(record.usage),
    }
}

pub(crate) fn process_type(wire: wire::ProcessType) -> ProcessType {
    match wire {
        wire::ProcessType::Node => ProcessType::Node,
        wire::ProcessType::Python => ProcessType::Python,
        wire::ProcessType::Shell => ProcessType::Shell,
        wire::ProcessType::Workerd => ProcessType::Workerd,
        wire::ProcessType::OpenClaw => ProcessType::OpenClaw,
    }
}

fn process_type_of(name: &str) -> wire::ProcessType {
    let known = wire::ProcessType::ALL.into_iter().find(|one| one.as_str() == name);
    // Only this service's own notes say the name; a version that knew more types would be newer.
    known.unwrap_or(wire::ProcessType::Shell)
}

pub(crate) fn encoding(encoding: mhnos_process::Encoding) -> wire::Encoding {
    match encoding {
        mhnos_process::Encoding::Utf8 => wire::Encoding::Utf8,
        mhnos_process::Encoding::Base64 => wire::Encoding::Base64,
    }
}

pub(crate) fn encoding_from(encoding: wire::Encoding) -> mhnos_process::Encoding {
    match encoding {
        wire::Encoding::Utf8 => mhnos_process::Encoding::Utf8,
        wire::Encoding::Base64 => mhnos_process::Encoding::Base64,
    }
}

pub(crate) fn scope(scope: wire::Scope) -> Scope {
    match scope {
        wire::Scope::Tree => Scope::Tree,
        wire::Scope::Leader => Scope::Leader,
    }
}

pub(crate) fn isolation_mode(mode: Option<wire::IsolationMode>) -> Isolation {
    match mode {
        None | Some(wire::IsolationMode::Shared) => Isolation::Shared,
        Some(wire::IsolationMode::Private) => Isolation::Private,
    }
}

/// `lingering`: who lives on, if the process has ended and somebody does.
pub(crate) fn process(
    process: &Process,
    lingering: Option<Vec<Member>>,
    ports: Vec<wire::OpenPort>,
) -> wire::ProcessInfo {
    let info = process.info();
    let state = process.state();
    wire::ProcessInfo {
        pid: process.pid(),
        process_type: process_type_of(&info.process_type),
        command: info.command.clone(),
        args: info.args.clone(),
        start_time: process.started_ms(),
        status: status(&state),
        name: info.name.clone(),
        pty: process.window_size().map(window_size),
        encoding: encoding(info.encoding),
        seq: process.end_position(),
        isolation: isolation(process.enforcement()),
        exit: if let State::Exited(record) = &state { Some(exit_info(record)) } else { None },
        lingering: lingering.map(|members| {
            members.into_iter().map(|Member { os_pid, name }| wire::Lingerer { os_pid, name }).collect()
        }),
        ports,
    }
}

/// What `status` says of the programs that process types need. `None` while they are still being found.
pub(crate) fn tools(toolbox: Option<&Toolbox>, allow_openclaw: bool) -> Vec<wire::ToolStatus> {
    wire::ProcessType::ALL.into_iter().map(|one| tool_status(one, toolbox, allow_openclaw)).collect()
}

fn tool_status(
    process_type: wire::ProcessType,
    toolbox: Option<&Toolbox>,
    allow_openclaw: bool,
) -> wire::ToolStatus {
    let tool = match process_type {
        wire::ProcessType::Node => Tool::Node,
        wire::ProcessType::Python => Tool::Python,
        wire::ProcessType::Shell => Tool::Bash,
        wire::ProcessType::Workerd => Tool::Workerd,
        wire::ProcessType::OpenClaw => Tool::OpenClaw,
    };
    let (path, version) = match toolbox.map(|toolbox| toolbox.finding(tool)) {
        Some(Finding::Found { path, version } | Finding::TooOld { path, version }) => {
            (Some(path.clone()), Some(version.to_string()))
        }
        Some(Finding::Broken { path, .. }) => (Some(path.clone()), None),
        Some(Finding::Missing) | None => (None, None),
    };
    let problem = if tool == Tool::OpenClaw && !allow_openclaw {
        Some(RecipeError::OpenClawDisabled.to_string())
    } else {
        match toolbox {
            Some(toolbox) => toolbox.problem(tool),
            None => Some("it has not been looked for yet".to_owned()),
        }
    };
    wire::ToolStatus { process_type, available: problem.is_none(), path, version, problem }
}

pub(crate) fn path_error(error: &PathError) -> ErrorReply {
    let code = match error {
        PathError::Empty | PathError::Nul { .. } | PathError::Name { .. } | PathError::TooLong { .. } => {
            ErrorCode::InvalidValue
        }
        PathError::Escapes { .. } => ErrorCode::PathOutsideWorkspace,
        PathError::Missing { .. }
        | PathError::NotADirectory { .. }
        | PathError::IsADirectory { .. }
        | PathError::Special { .. }
        | PathError::Dangling { .. } => ErrorCode::PathNotFound,
        PathError::TooLarge { .. } | PathError::TooDeep { .. } => ErrorCode::TooLarge,
        PathError::Quota { .. } | PathError::Io { .. } => ErrorCode::FileFailed,
    };
    ErrorReply::new(code, error.to_string())
}

pub(crate) fn recipe_error(error: &RecipeError) -> ErrorReply {
    let code = match error {
        RecipeError::CommandMissing { .. } => ErrorCode::MissingField,
        RecipeError::ToolUnavailable { .. } => ErrorCode::ProgramNotFound,
        RecipeError::OpenClawDisabled => ErrorCode::NotAllowed,
        RecipeError::Nul { .. }
        | RecipeError::VariableName { .. }
        | RecipeError::StdinOfTerminal
        | RecipeError::WorkerArgument { .. }
        | RecipeError::WorkerSource { .. } => ErrorCode::InvalidValue,
    };
    ErrorReply::new(code, error.to_string())
}

/// `program` and `cwd` are what the launch named.
pub(crate) fn spawn_error(error: &SpawnError, program: &str, cwd: &str) -> ErrorReply {
    match error {
        SpawnError::Limit { max } => {
            ErrorReply::new(ErrorCode::ProcessLimit, format!("Maximum process limit reached ({max})"))
        }
        SpawnError::Draining => {
            ErrorReply::new(ErrorCode::Draining, "The service is shutting down and starts nothing new")
        }
        SpawnError::Failed(failure) => spawn_failure(failure, program, cwd),
        SpawnError::TooLarge => too_long(),
        SpawnError::NoNumber => ErrorReply::new(
            ErrorCode::ProcessLimit,
            "All process numbers have been used; restart the service",
        ),
        SpawnError::KeeperGone => {
            ErrorReply::new(ErrorCode::Internal, "The service is restarting; try again")
        }
    }
}

fn too_long() -> ErrorReply {
    ErrorReply::new(ErrorCode::ArgumentsTooLong, "Arguments and environment are too long")
}

fn spawn_failure(failure: &Failure, program: &str, cwd: &str) -> ErrorReply {
    // A failure that is not the kernel's has the number 0, which `Errno` cannot hold.
    let is = |errno: rustix::io::Errno| failure.errno == errno.raw_os_error();
    let why = describe(failure);
    match failure.stage {
        Stage::Chdir => ErrorReply::new(
            ErrorCode::PathNotFound,
            format!("Working directory {cwd} cannot be entered: {why}"),
        ),
        Stage::Exec if is(rustix::io::Errno::TOOBIG) => too_long(),
        Stage::Exec if is(rustix::io::Errno::NOENT) => {
            ErrorReply::new(ErrorCode::ProgramNotFound, format!("Program {program} not found: {why}"))
        }
        Stage::Exec => {
            ErrorReply::new(ErrorCode::SpawnFailed, format!("Program {program} cannot be executed: {why}"))
        }
        Stage::Sandbox => {
            let text = format!("The sandbox could not be built: {why}");
            ErrorReply::new(ErrorCode::IsolationUnavailable, text)
        }
        Stage::Order | Stage::Stdio | Stage::Fork | Stage::Confine => ErrorReply::new(
            ErrorCode::SpawnFailed,
            format!("Program {program} could not be started ({:?}): {why}", failure.stage),
        ),
    }
}

fn describe(failure: &Failure) -> Cow<'_, str> {
    if failure.errno == 0 {
        return Cow::Borrowed(&failure.detail);
    }
    let text = std::io::Error::from_raw_os_error(failure.errno).to_string();
    // Without Rust's "(os error N)".
    let text = text.split(" (os error").next().unwrap_or_default().to_owned();
    if failure.detail.is_empty() {
        Cow::Owned(text)
    } else {
        Cow::Owned(format!("{text} ({})", failure.detail))
    }
}

pub(crate) fn write_error(error: WriteError, pid: wire::Pid) -> ErrorReply {
    let code = match error {
        WriteError::Closed { .. } => ErrorCode::StdinClosed,
        WriteError::Full { .. } => ErrorCode::StdinFull,
        WriteError::Exited { .. } => ErrorCode::ProcessExited,
    };
    let text = match error.taken() {
        0 => error.to_string(),
        taken => format!("{error}; {taken} bytes were taken before"),
    };
    let reply = ErrorReply::new(code, text).about(pid);
    match error {
        WriteError::Full { taken } => reply.after_taking(taken as u64),
        WriteError::Closed { .. } | WriteError::Exited { .. } => reply,
    }
}

pub(crate) fn gone(pid: wire::Pid) -> ErrorReply {
    ErrorReply::new(ErrorCode::ProcessExited, format!("Process {pid} has ended")).about(pid)
}
/// `egress`
pub(crate) fn egress(refused: &mhnos_network::Refused) -> wire::Egress {
    wire::Egress {
        pid: refused.owner.0,
        host: refused.host.clone(),
        port: refused.port,
        rule: refused.rule.to_owned(),
        via: refused.via.as_str().to_owned(),
        count: refused.count,
        others: refused.others,
    }
}
