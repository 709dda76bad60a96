//! The service under test: the built binary, started as a user would start it.
//!
//! Its environment is empty but for what the options say, its port is one that was free, its workspace is its own. The
//! readiness line on stdout (`listening on http://127.0.0.1:PORT`) is the only thing waited for.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::eventually::eventually;
use crate::host::Host;
use crate::http::{HttpReply, http_get};
use crate::leftovers::{Survivor, alive, descendants, survivors};
use crate::scratch::Scratch;
use crate::tools::tools_path;

mod capture;

use capture::Capture;

/// From start to the readiness line; milliseconds are normal, a loaded machine may take seconds.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// From SIGTERM to the end; covers the kill grace of stubborn programs.
const STOP_DEADLINE: Duration = Duration::from_mins(1);
/// From the end of the keeper to the end of the last process of its sandboxes.
const LEFTOVER_DEADLINE: Duration = Duration::from_secs(10);

/// How to start the service.
#[derive(Debug)]
pub struct Options {
    binary: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    workspace: Option<PathBuf>,
    host: Option<&'static Host>,
    ulimit: Option<String>,
}

impl Options {
    /// `binary` is `env!("CARGO_BIN_EXE_mhnos-runtime")` of the calling test. Defaults: port 0, the pinned tools, a new
    /// workspace, log level debug, a stop grace of one second.
    #[track_caller]
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        let environment = [
            ("MHNOS_RUNTIME_PORT", "0".to_owned()),
            ("MHNOS_PATH", tools_path()),
            ("MHNOS_LOG_LEVEL", "debug".to_owned()),
            ("MHNOS_KILL_GRACE", "1s".to_owned()),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Self {
            binary: binary.into(),
            arguments: Vec::new(),
            environment,
            workspace: None,
            host: None,
            ulimit: None,
        }
    }

    /// Sets an environment variable, in place of a default of the same name.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Leaves a default out.
    #[must_use]
    pub fn without_env(mut self, name: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self
    }

    /// Adds an argument after `serve`.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Starts it on this kind of host, which the program `mhnos-host` beside the service's binary makes.
    #[must_use]
    #[track_caller]
    pub fn on(mut self, host: &str) -> Self {
        self.host = Some(Host::named(host));
        self
    }

    /// Starts it from a shell that has set this limit: the words after `ulimit`.
    #[must_use]
    pub fn ulimit(mut self, limit: &str) -> Self {
        self.ulimit = Some(limit.to_owned());
        self
    }

    /// Uses this directory as the workspace instead of a new one; it is not removed.
    #[must_use]
    pub fn workspace(mut self, directory: impl Into<PathBuf>) -> Self {
        self.workspace = Some(directory.into());
        self
    }
}

/// The service ended instead of getting ready.
#[derive(Debug)]
pub struct StartFailure {
    /// How it ended.
    pub status: ExitStatus,
    /// All it wrote on stdout.
    pub stdout: String,
    /// All it wrote on stderr.
    pub stderr: String,
}

/// A running service. Dropping it kills it, and with it everything it started.
#[derive(Debug)]
pub struct Server {
    child: Child,
    status: Option<ExitStatus>,
    address: SocketAddr,
    output: Capture,
    workspace: PathBuf,
    scratch: Scratch,
    /// Its processes when it was last told to end.
    family: Mutex<Vec<Survivor>>,
}

impl Server {
    /// Starts the service and waits until it listens; panics with its output where it does not.
    #[track_caller]
    pub fn start(options: Options) -> Self {
        match Self::try_start(options) {
            Ok(server) => server,
            Err(failure) => panic!(
                "the service did not start ({})\n--- stdout\n{}\n--- stderr\n{}",
                failure.status, failure.stdout, failure.stderr
            ),
        }
    }

    /// The same where not starting is what the test is about.
    #[track_caller]
    pub fn try_start(options: Options) -> Result<Self, StartFailure> {
        let scratch = Scratch::new();
        let workspace = options.workspace.unwrap_or_else(|| {
            let inside = scratch.path().join("workspace");
            std::fs::create_dir(&inside).expect("the scratch directory is ours");
            inside
        });
        let mut command = match options.host {
            None => match &options.ulimit {
                None => Command::new(&options.binary),
                Some(limit) => {
                    let mut command = Command::new("/bin/sh");
                    command.args(["-c", "ulimit $1 && shift && exec \"$0\" \"$@\""]);
                    command.arg(&options.binary).arg(limit);
                    command
                }
            },
            Some(host) => {
                host.give(&workspace);
                let mut command = Command::new(options.binary.with_file_name("mhnos-host"));
                command.arg(host.name).arg(&options.binary);
                command
            }
        };
        command.arg("serve").args(&options.arguments);
        command.env_clear().env("MHNOS_WORKSPACE", &workspace).envs(options.environment);
        // By which processes that have no mount table of their own are known.
        command.current_dir(scratch.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", command.get_program().display()));
        let output = Capture::of(&mut child);
        if let Some(address) = output.listening(START_DEADLINE) {
            let family = Mutex::default();
            return Ok(Self { child, status: None, address, output, workspace, scratch, family });
        }
        // Still running means that it never got ready; the panic message of start() then shows its log.
        let _ = child.kill();
        let status = child.wait().expect("our own child can be waited for");
        let (stdout, stderr) = output.finish();
        Err(StartFailure { status, stdout, stderr })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The WebSocket address.
    pub fn url(&self) -> String {
        format!("ws://{}/", self.address)
    }

    /// The keeper's process number.
    pub fn os_pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid fits")
    }

    /// The workspace as the host sees it.
    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// Puts a file into the workspace, with the directories above it, and returns its path as processes see it
    /// (in every mode the host's; `/workspace` leads there only behind walls). Anybody may read and execute it.
    #[track_caller]
    pub fn write(&self, relative: &str, content: impl AsRef<[u8]>) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = self.workspace.join(relative);
        let parent = path.parent().expect("a file in the workspace has a parent");
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, content))
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)))
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        path.display().to_string()
    }

    /// GET from the service.
    #[track_caller]
    pub fn get(&self, path: &str) -> HttpReply {
        http_get(self.address, path, &[])
            .unwrap_or_else(|error| panic!("GET {path}: {error}\n{}", self.log()))
    }

    /// All it has logged so far (stderr).
    pub fn log(&self) -> String {
        self.output.stderr()
    }

    /// All it has written on stdout so far.
    pub fn stdout(&self) -> String {
        self.output.stdout()
    }

    /// Waits until a line with `needle` has been logged, and returns the line.
    #[track_caller]
    pub fn logged(&self, deadline: Duration, needle: &str) -> String {
        eventually(deadline, needle, || {
            self.log().lines().find(|line| line.contains(needle)).map(str::to_owned)
        })
    }

    /// Everything it has started and that is alive or unreaped: bridge, sandboxes, programs.
    pub fn descendants(&self) -> Vec<Survivor> {
        descendants(self.os_pid())
    }

    /// Sends a signal to the keeper; to one that has ended it is a no-op.
    pub fn signal(&self, signal: Signal) {
        if self.status.is_none() {
            if [Signal::KILL, Signal::TERM, Signal::INT].contains(&signal) {
                *self.family.lock().expect("nothing panics with it") = self.descendants();
            }
            // The child has not been waited for, so its number cannot belong to another process.
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }

    /// Waits for the end; panics with the log after the deadline.
    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        if let Some(status) = self.status {
            return status;
        }
        let child = &mut self.child;
        let status = eventually(deadline, "the service ends", || child.try_wait().expect("our own child"));
        self.status = Some(status);
        status
    }

    /// SIGTERM, then the end.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(STOP_DEADLINE)
    }

    /// SIGKILL to the keeper, then its end.
    #[track_caller]
    pub fn kill(&mut self) -> ExitStatus {
        self.signal(Signal::KILL);
        self.wait(STOP_DEADLINE)
    }

    /// Processes of this server that are alive now, with or without a keeper.
    pub fn leftovers(&self) -> Vec<Survivor> {
        let mut left = survivors(self.scratch.marker());
        let family = alive(&self.family.lock().expect("nothing panics with it"));
        let known: HashSet<i32> = left.iter().map(|one| one.os_pid).collect();
        left.extend(family.into_iter().filter(|one| !known.contains(&one.os_pid)));
        left
    }

    /// Panics unless every process of this server ends soon, and, after an orderly end, if it has left control groups; to be
    /// called after its end.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let start = Instant::now();
        eventually(2 * LEFTOVER_DEADLINE, "nothing of the service is left", || {
            let alive = self.leftovers();
            assert!(start.elapsed() < LEFTOVER_DEADLINE || alive.is_empty(), "these outlived it: {alive:#?}");
            alive.is_empty().then_some(())
        });
        if self.status.is_some_and(|status| status.success()) {
            // In version 2 the keeper has to end in one, which is the next start's to remove.
            let groups: Vec<_> =
                self.control_groups().into_iter().filter(|dir| !dir.join("service").exists()).collect();
            assert!(groups.is_empty(), "it has left control groups: {groups:?}");
        }
    }

    /// The directories of its control groups.
    pub fn control_groups(&self) -> Vec<PathBuf> {
        mhnos_sandbox::cgroup::left_by(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the service at {}\n{}", self.address, self.output.stderr());
        }
    }
}
