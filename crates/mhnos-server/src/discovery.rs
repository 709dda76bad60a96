//! Which of the programs that process types need are on this machine, and in which version. Each is asked
//! for its version through the very launch path that user processes take, so a program that cannot run in
//! the sandbox is found out at start and not by the first user. Serving does not wait for it; a spawn does.

use std::sync::Arc;

use futures_util::future::join_all;
use mhnos_process::{Info, Isolation, Next, Process, Replay, SpawnRequest, Stream};
use mhnos_runtimes::{Finding, Tool, Toolbox};
use mhnos_sandbox::{Limits, Stdio};
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use crate::{limits, service::Service};

/// Looks for every tool and publishes what was found.
pub(crate) async fn discover(service: &Service, publish: &watch::Sender<Option<Arc<Toolbox>>>) {
    let mut toolbox = Toolbox::default();
    // OpenClaw takes long to say its version and nobody may start it unless it is allowed.
    let wanted =
        Tool::ALL.into_iter().filter(|tool| *tool != Tool::OpenClaw || service.config.allow_openclaw);
    let located = wanted.filter_map(|tool| Some((tool, tool.locate(&service.config.path, &is_executable)?)));
    let questions = located.map(|(tool, path)| {
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
async fn ask(service: &Service, launch: mhnos_sandbox::Launch) -> Result<String, String> {
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

fn is_executable(path: &str) -> bool {
    use rustix::fs::{Access, FileType, access, stat};
    let is_file = stat(path).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
    is_file && access(path, Access::EXEC_OK).is_ok()
}
