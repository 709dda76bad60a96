//! The crate as the server uses it, against a keeper that starts real programs.
#![expect(
    clippy::disallowed_methods,
    reason = "the keeper of these tests starts programs, and a bridge to be killed"
)]

mod adoption;
mod end;
mod input;
mod keeper;
mod output;
mod pace;

use std::{sync::Arc, time::Duration};

use mhnos_keeper::channel::Isolation;
use mhnos_process::{
    DriverEnd, ExitRecord, Info, Next, Process, Processes, Replay, Settings, SpawnRequest, Stream, Viewer,
};
use mhnos_sandbox::{Launch, Limits, Stdio, WindowSize};
use tokio::{sync::Notify, task::JoinHandle};

use self::keeper::Keeper;

const LOG_BYTES: u64 = 4 << 20;
const LIMITS: Limits = Limits { memory: 1 << 30, pids: 512, cpu_millis: 2000 };
/// Long enough for a loaded machine, short enough to be noticed.
const PATIENCE: Duration = Duration::from_secs(30);

fn settings() -> Settings {
    Settings {
        max_processes: 50,
        kill_grace: Duration::from_millis(300),
        retain_count: 100,
        retain_for: Duration::from_mins(10),
        limits: LIMITS,
        stall_deadline: Duration::from_secs(10),
        on_end: None,
    }
}

/// A bridge: what the server holds.
struct Bridge {
    processes: Processes,
    driver: JoinHandle<DriverEnd>,
}

impl Bridge {
    async fn start(keeper: &Arc<Keeper>, settings: Settings) -> Self {
        let (processes, mut driver) = Processes::connect(keeper.channel(), settings).await.expect("connect");
        Self { processes, driver: tokio::spawn(async move { driver.run().await }) }
    }

    /// Ends as suddenly as a task can.
    async fn die(self) {
        self.driver.abort();
        _ = self.driver.await;
    }

    async fn spawn(&self, request: SpawnRequest) -> Arc<Process> {
        self.processes.spawn(request).await.expect("spawn")
    }

    async fn sh(&self, script: &str) -> Arc<Process> {
        self.spawn(sh(script)).await
    }
}

async fn bridge() -> (Arc<Keeper>, Bridge) {
    let keeper = Keeper::new(LOG_BYTES);
    let bridge = Bridge::start(&keeper, settings()).await;
    (keeper, bridge)
}

fn request(program: &str, args: &[&str], stdio: Stdio) -> SpawnRequest {
    let words = std::iter::once(program).chain(args.iter().copied()).map(String::from).collect();
    let env = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("TERM", "dumb"), ("PS1", "$ ")];
    let env = env.map(|(name, value)| (name.into(), value.into())).to_vec();
    SpawnRequest {
        launch: Launch { program: program.into(), argv: words, env, cwd: "/".into(), extra_fds: Vec::new() },
        stdio,
        isolation: Isolation::Shared,
        limits: LIMITS,
        timeout: None,
        grace: None,
        info: Info { process_type: "shell".into(), ..Info::default() },
        probe: false,
    }
}

fn sh(script: &str) -> SpawnRequest {
    request("sh", &["-c", script], Stdio::Pipes { stdin: true })
}

fn pty(program: &str, args: &[&str]) -> SpawnRequest {
    request(program, args, Stdio::Pty(WindowSize::DEFAULT))
}

/// Everything one viewer got until the exit.
#[derive(Debug, Default)]
struct Seen {
    out: Vec<u8>,
    err: Vec<u8>,
    late: Vec<u8>,
    gaps: Vec<(u64, u64)>,
    exit: Option<ExitRecord>,
}

/// A viewer with what it got.
struct Watcher {
    viewer: Viewer,
    wake: Arc<Notify>,
    seen: Seen,
}

impl Watcher {
    fn new(process: &Process, replay: Replay) -> Self {
        let wake = Arc::new(Notify::new());
        Self { viewer: process.attach(replay, wake.clone()), wake, seen: Seen::default() }
    }

    /// Takes everything until `done`.
    async fn until(&mut self, done: impl Fn(&Seen) -> bool) {
        let waiting = async {
            while !done(&self.seen) {
                let seen = &mut self.seen;
                let next = self.viewer.next(64 * 1024, |piece| match (piece.late, piece.stream) {
                    (true, _) => seen.late.extend_from_slice(piece.bytes),
                    (false, Stream::Stdout) => seen.out.extend_from_slice(piece.bytes),
                    (false, Stream::Stderr) => seen.err.extend_from_slice(piece.bytes),
                });
                match next {
                    Next::Nothing => self.wake.notified().await,
                    Next::Output(()) => {}
                    Next::Gap { from, to } => seen.gaps.push((from, to)),
                    Next::Exit(record) => seen.exit = Some(record),
                }
            }
        };
        let came = tokio::time::timeout(PATIENCE, waiting).await.is_ok();
        let (out, err) = (self.seen.out.len(), self.seen.err.len());
        assert!(came, "in vain; seen {out} and {err} bytes, {:?}", self.seen.exit);
    }

    async fn until_out(&mut self, text: &str) {
        self.until(|seen| String::from_utf8_lossy(&seen.out).contains(text)).await;
    }
}

async fn finish(process: &Process) -> Seen {
    let mut watcher = Watcher::new(process, Replay::Retained);
    watcher.until(|seen| seen.exit.is_some()).await;
    watcher.seen
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// What `seq` prints, with this end of line.
fn seq(last: u32, end_of_line: &str) -> String {
    let mut text = String::new();
    for n in 1..=last {
        text.push_str(&n.to_string());
        text.push_str(end_of_line);
    }
    text
}
