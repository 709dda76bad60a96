//! Which of the programs that process types need are on this machine, and in which version. Each is asked
//! for its version through the very launch path that user processes take, so a program that cannot run in
//! the sandbox is found out at start and not by the first user. Serving does not wait for it; a spawn does.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures_util::future::join_all;
use mhnos_process::{Info, Isolation, Next, Process, Replay, SpawnRequest, Stream};
use mhnos_runtimes::{Finding, Tool, Toolbox};
use mhnos_sandbox::{Launch, Limits, Stdio};
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use crate::{limits, service::Service};

/// Looks for every tool and publishes what was found.
pub(crate) async fn discover(service: &Service, publish: &watch::Sender<Option<Arc<Toolbox>>>) {
    let mut toolbox = Toolbox::default();
    // OpenClaw takes long to say its version and nobody may start it unless it is allowed.
    let wanted = |tool: &Tool| *tool != Tool::OpenClaw || service.config.allow_openclaw;
    let located = match locate(service, Tool::ALL.into_iter().filter(wanted).collect()).await {
        Ok(located) => located,
        Err(text) => {
            toolbox.give_up(&text);
            Vec::new()
        }
    };
    let questions = located.into_iter().map(|(tool, path)| {
        let launch = toolbox.probe(tool, &path, &service.context);
        async move {
            let said = ask(service, launch).await;
            (tool, path, said)
        }
    });
    // `join_all` keeps the order, which `record` depends on.
    for (tool, path, said) in join_all(questions.collect::<Vec<_>>()).await {
        toolbox.record(tool, &path, said.as_deref().map_err(Clone::clone));
    }
    report(&toolbox, service.config.allow_openclaw);
    publish.send_replace(Some(Arc::new(toolbox)));
}

/// Where the tools are, as programs will see it. The bridge may not be able to reach these places itself
/// (a checkout below `/root`), so the sandbox is asked which of the possible files can be executed.
async fn locate(service: &Service, tools: Vec<Tool>) -> Result<Vec<(Tool, String)>, String> {
    let mut known: HashMap<String, bool> = HashMap::new();
    loop {
        let (found, unknown) = search(&tools, &service.config.path, &known);
        if unknown.is_empty() {
            return Ok(found);
        }
        let executable = ask(service, executables(&unknown, service)).await?;
        let executable: HashSet<&str> = executable.lines().collect();
        known.extend(unknown.into_iter().map(|path| (path.clone(), executable.contains(path.as_str()))));
    }
}

/// The tools, as far as what is known tells, and the paths of which it must be known whether they can be
/// executed.
fn search(tools: &[Tool], path: &str, known: &HashMap<String, bool>) -> (Vec<(Tool, String)>, Vec<String>) {
    let unknown = RefCell::new(Vec::new());
    let is_executable = |path: &str| {
        known.get(path).copied().unwrap_or_else(|| {
            unknown.borrow_mut().push(path.to_owned());
            false
        })
    };
    let find = |tool: &Tool| Some((*tool, tool.locate(path, &is_executable)?));
    let found = tools.iter().filter_map(find).collect();
    (found, unknown.into_inner())
}

/// Prints those of the paths that are files one may execute.
fn executables(paths: &[String], service: &Service) -> Launch {
    let script =
        "for path; do [ -f \"$path\" ] && [ -x \"$path\" ] && printf '%s\\n' \"$path\"; done; exit 0";
    let argv = ["sh", "-c", script, "sh"].into_iter().map(str::to_owned).chain(paths.iter().cloned());
    Launch {
        program: "/bin/sh".to_owned(),
        argv: argv.collect(),
        env: Vec::new(),
        cwd: service.workspace.visible_path().to_owned(),
        extra_fds: Vec::new(),
    }
}

fn report(toolbox: &Toolbox, allow_openclaw: bool) {
    let mut found = Vec::new();
    for tool in Tool::ALL {
        if let Finding::Found { version, .. } = toolbox.finding(tool) {
            found.push(format!("{} {version}", tool.program()));
        } else if tool != Tool::OpenClaw || allow_openclaw {
            let problem = toolbox.problem(tool).unwrap_or_default();
            warn!(tool = tool.program(), "{problem}");
        }
    }
    info!(found = found.join(", "), "programs");
}

/// Runs a probe: its stdout if it exits with 0, else a reason.
async fn ask(service: &Service, launch: Launch) -> Result<String, String> {
    let config = &service.config;
    let request = SpawnRequest {
        launch,
        stdio: Stdio::Pipes { stdin: false },
        isolation: Isolation::Shared,
        limits: Limits {
            memory: config.max_memory,
            pids: config.max_pids,
            cpu_millis: config.max_cpu_millis,
        },
        timeout: Some(limits::DISCOVERY_DEADLINE),
        grace: Some(limits::DISCOVERY_GRACE),
        info: Info::default(),
        probe: true,
    };
    let process = service.processes.spawn(request).await.map_err(|error| error.to_string())?;
    let (stdout, stderr) = output(&process).await;
    match process.exit().map(|exit| exit.status) {
        Some(mhnos_process::ExitStatus::Code(0)) => Ok(stdout),
        Some(mhnos_process::ExitStatus::Code(code)) => Err(format!("exit code {code}: {}", stderr.trim())),
        Some(mhnos_process::ExitStatus::Signal(number)) => {
            Err(format!("{} after {:?}", mhnos_protocol::Signal::name_of(number), limits::DISCOVERY_DEADLINE))
        }
        Some(mhnos_process::ExitStatus::Lost) | None => Err("it vanished".to_owned()),
    }
}

/// Its stdout and stderr until its exit, as much as is kept.
async fn output(process: &Process) -> (String, String) {
    let wake = Arc::new(Notify::new());
    let mut viewer = process.attach(Replay::Retained, Arc::clone(&wake));
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        let next = viewer.next(limits::DISCOVERY_OUTPUT, |piece| {
            let kept = if piece.stream == Stream::Stdout { &mut stdout } else { &mut stderr };
            let room = limits::DISCOVERY_OUTPUT.saturating_sub(kept.len());
            kept.extend_from_slice(&piece.bytes[..piece.bytes.len().min(room)]);
        });
        match next {
            Next::Output(()) | Next::Gap { .. } => {}
            Next::Exit(_) => break,
            Next::Nothing => wake.notified().await,
        }
    }
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(stdout), text(stderr))
}
