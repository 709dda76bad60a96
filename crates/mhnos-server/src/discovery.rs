//! Which of the programs that process types need are on this machine, and in which version. Each is asked
//! for its version through the very launch path that user processes take, so a program that cannot run in
//! the sandbox is found out at start and not by the first user. Serving does not wait for it; a spawn does.
//!
//! A program that gave no answer (its file was still being read from a cold disk, memory was short) is asked again,
//! and one that a spawn missed is looked for again: what was installed meanwhile is found without a restart.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use mhnos_process::{Info, Isolation, Next, Process, Replay, SpawnRequest, Stream};
use mhnos_runtimes::{Finding, Tool, Toolbox};
use mhnos_sandbox::{Launch, Limits, Stdio};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};
use tracing::{info, warn};

use crate::{limits, service::Service};

/// Why a program did not tell its version.
struct Failure {
    text: String,
    /// Whether another time may go better: it did not end by itself.
    passing: bool,
}

/// Looks for every tool and publishes what was found; again while one of them gave no answer, and whenever a spawn
/// missed one. Never returns.
pub(crate) async fn discover(service: &Service, publish: &watch::Sender<Option<Arc<Toolbox>>>) {
    let mut toolbox = Toolbox::default();
    // OpenClaw takes long to say its version and nobody may start it unless it is allowed.
    let allowed = |tool: &Tool| *tool != Tool::OpenClaw || service.config.allow_openclaw;
    let mut wanted: Vec<Tool> = Tool::ALL.into_iter().filter(allowed).collect();
    // Spawns wait for the first answers, and not for later ones.
    let mut deadline = limits::DISCOVERY_DEADLINE;
    let mut pause = limits::DISCOVERY_PAUSE;
    loop {
        let unanswered = look(service, &mut toolbox, wanted, deadline).await;
        report(&toolbox, service.config.allow_openclaw);
        publish.send_replace(Some(Arc::new(toolbox.clone())));
        sleep(limits::DISCOVERY_PAUSE).await;
        wanted = tokio::select! {
            () = service.missed.notified() => {
                Tool::ALL.into_iter().filter(allowed).filter(|tool| toolbox.problem(*tool).is_some()).collect()
            }
            () = sleep(pause), if !unanswered.is_empty() => unanswered,
        };
        deadline = limits::DISCOVERY_DEADLINE_LATER;
        pause = (pause * 2).min(limits::DISCOVERY_LONGEST_PAUSE);
    }
}

/// Looks for these tools and notes what was found. Those that gave no answer are returned.
async fn look(service: &Service, toolbox: &mut Toolbox, tools: Vec<Tool>, deadline: Duration) -> Vec<Tool> {
    let located = match locate(service, &tools, deadline).await {
        Ok(located) => located,
        Err(failure) => {
            let text = format!("it could not be looked for: {}", failure.text);
            for tool in &tools {
                toolbox.record(*tool, tool.program(), Err(text.clone()));
            }
            return tools;
        }
    };
    let questions = located.into_iter().map(|(tool, path)| {
        let launch = toolbox.probe(tool, &path, &service.context);
        async move {
            let said = ask(service, launch, deadline).await;
            (tool, path, said)
        }
    });
    let mut unanswered = Vec::new();
    // `join_all` keeps the order, which `record` depends on.
    for (tool, path, said) in join_all(questions.collect::<Vec<_>>()).await {
        if said.as_ref().is_err_and(|failure| failure.passing) {
            unanswered.push(tool);
        }
        toolbox.record(tool, &path, said.as_deref().map_err(|failure| failure.text.clone()));
    }
    unanswered
}

/// Where the tools are, as programs will see it. The bridge may not be able to reach these places itself
/// (a checkout below `/root`), so the sandbox is asked which of the possible files can be executed.
async fn locate(
    service: &Service,
    tools: &[Tool],
    deadline: Duration,
) -> Result<Vec<(Tool, String)>, Failure> {
    let mut known: HashMap<String, bool> = HashMap::new();
    loop {
        let (found, unknown) = search(tools, &service.config.path, &known);
        if unknown.is_empty() {
            return Ok(found);
        }
        let said = ask(service, executables(&unknown, service), deadline).await?;
        let executable: HashSet<&str> = said.lines().collect();
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
async fn ask(service: &Service, launch: Launch, deadline: Duration) -> Result<String, Failure> {
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
        timeout: Some(deadline),
        grace: Some(limits::DISCOVERY_GRACE),
        info: Info::default(),
        probe: true,
    };
    let passing = |text: String| Failure { text: format!("{text}; it is asked again"), passing: true };
    let process = service.processes.spawn(request).await.map_err(|error| passing(error.to_string()))?;
    let (stdout, stderr) = output(&process).await;
    match process.exit().map(|exit| exit.status) {
        Some(mhnos_process::ExitStatus::Code(0)) => Ok(stdout),
        Some(mhnos_process::ExitStatus::Code(code)) => {
            Err(Failure { text: format!("exit code {code}: {}", stderr.trim()), passing: false })
        }
        Some(mhnos_process::ExitStatus::Signal(number)) => {
            let signal = mhnos_protocol::Signal::name_of(number);
            Err(passing(format!("ended by {signal} before it told its version, {deadline:?} at most")))
        }
        Some(mhnos_process::ExitStatus::Lost) | None => Err(passing("it vanished".to_owned())),
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
