//! A keeper for tests: starts programs on pipes, or on a terminal that controls nothing, as children of the test, without a sandbox.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, Stdio as Std},
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::{SystemTime, UNIX_EPOCH},
};

use mhnos_keeper::{
    channel::{
        Descriptor, DialFailure, Exit, ExitStatus, Failure, FromKeeper, Order, Pid, Scope, Stage, ToKeeper,
        Usage, Welcome,
    },
    log_file,
    socket::{Blocking, RecvError, Socket},
};
use mhnos_sandbox::{Enforcement, Layer, Mode, Stdio, Tier};
use mhnos_server::{Bridge, RunError, Secrets, config::Config};
use mhnos_testing::Scratch;
use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    pipe::{PipeFlags, pipe_with},
    process::{Signal, kill_process, kill_process_group},
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt},
};

/// A bridge that serves, with its keeper and its workspace.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    pub(crate) workspace: Scratch,
    keeper: Arc<Keeper>,
    bridge: tokio::task::JoinHandle<Result<(), RunError>>,
    thread: Option<JoinHandle<()>>,
    drained: mpsc::Receiver<()>,
}

impl Service {
    /// Starts one; to be called in a tokio runtime.
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    pub(crate) fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let workspace = Scratch::new();
        let mut config = Config {
            workspace: workspace.path().to_owned(),
            path: std::env::var("PATH").expect("a PATH"),
            ..Config::default()
        };
        change(&mut config);
        let (ours, theirs) = Socket::pair(Blocking::Yes).expect("a pair");
        let channel = theirs.into_fd();
        set_nonblocking(&channel);
        let (tell_drained, drained) = mpsc::channel();
        let keeper = Arc::new(Keeper {
            socket: ours,
            log_bytes: config.output_log,
            groups: Mutex::default(),
            drained: tell_drained,
        });
        let thread = {
            let keeper = Arc::clone(&keeper);
            std::thread::spawn(move || keeper.run())
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let dir = std::fs::File::open(workspace.path()).expect("workspace");
        let secrets = Secrets::gather(&config).expect("good secrets");
        let (listeners, workspace_dir) = (vec![listener.into()], dir.into());
        let bridge = Bridge {
            channel,
            listeners,
            workspace: workspace_dir,
            audit: None,
            programs: None,
            secrets,
            config,
        };
        let bridge = tokio::spawn(mhnos_server::run(bridge));
        Self { address, workspace, keeper, bridge, thread: Some(thread), drained }
    }

    /// Asks for a drain, as the keeper does on SIGTERM.
    pub(crate) fn drain(&self) {
        self.keeper.socket.send(&FromKeeper::Drain, &[]).expect("the bridge listens");
    }

    /// Waits for the bridge's own end.
    pub(crate) async fn ended(&mut self) -> Result<(), RunError> {
        (&mut self.bridge).await.expect("no panic")
    }

    /// Whether the bridge has said that it is drained.
    pub(crate) fn has_drained(&self) -> bool {
        self.drained.recv_timeout(std::time::Duration::from_secs(5)).is_ok()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.bridge.abort();
        let groups: Vec<i32> = self.keeper.groups.lock().expect("not poisoned").values().copied().collect();
        for group in groups {
            signal(group, Scope::Tree, Signal::KILL);
        }
        rustix::net::shutdown(&self.keeper.socket, rustix::net::Shutdown::Both).expect("shutdown");
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the keeper does not panic");
        }
    }
}

struct Keeper {
    socket: Socket,
    log_bytes: u64,
    /// Process groups, by pid.
    groups: Mutex<HashMap<Pid, i32>>,
    drained: mpsc::Sender<()>,
}

impl Keeper {
    fn run(self: &Arc<Self>) {
        let mut waiters: Vec<JoinHandle<()>> = Vec::new();
        loop {
            let message = match self.socket.recv::<ToKeeper>() {
                Ok(received) => received.message,
                Err(RecvError::Closed) => break,
                Err(error) => panic!("{error}"),
            };
            match message {
                ToKeeper::Hello => {
                    self.tell(&FromKeeper::Welcome(welcome()), &[]);
                    self.tell(&FromKeeper::Adopted, &[]);
                }
                ToKeeper::Spawn(order) => waiters.extend(self.spawn(&order)),
                ToKeeper::Signal { pid, signal: number, scope } => {
                    if let Some(group) = self.groups.lock().expect("not poisoned").get(&pid) {
                        signal(*group, scope, Signal::from_named_raw(number).expect("a signal"));
                    }
                }
                ToKeeper::Members { pid } => {
                    self.tell(&FromKeeper::Members { pid, members: Vec::new() }, &[]);
                }
                ToKeeper::Dial { token, .. } => {
                    let outcome = Err(DialFailure::Refused);
                    self.tell(&FromKeeper::Dialed { token, outcome }, &[]);
                }
                ToKeeper::Drained => self.drained.send(()).expect("the test waits"),
                // Nothing is held twice here, and nothing survives the bridge.
                ToKeeper::CloseStdin { .. } | ToKeeper::Note { .. } | ToKeeper::Forget { .. } => {}
            }
        }
        for waiter in waiters {
            waiter.join().expect("no panic");
        }
    }

    /// Sends a message; a bridge that is gone needs none.
    fn tell(&self, message: &FromKeeper, fds: &[&OwnedFd]) {
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        let _ = self.socket.send(message, &fds);
    }

    fn spawn(self: &Arc<Self>, order: &Order) -> Option<JoinHandle<()>> {
        let pid = order.pid;
        let (mut child, mut fds) = match start(order) {
            Ok(started) => started,
            Err(error) => {
                let stage =
                    if std::path::Path::new(&order.launch.cwd).is_dir() { Stage::Exec } else { Stage::Chdir };
                let errno = error.raw_os_error().unwrap_or(0);
                let failure = Failure { stage, errno, detail: order.launch.program.clone() };
                self.tell(&FromKeeper::Refused { pid, failure }, &[]);
                return None;
            }
        };
        fds.extend(child.stdin.take().map(|fd| (Descriptor::Stdin, fd.into())));
        fds.extend(child.stdout.take().map(|fd| (Descriptor::Stdout, fd.into())));
        fds.extend(child.stderr.take().map(|fd| (Descriptor::Stderr, fd.into())));
        for (_, fd) in &fds {
            set_nonblocking(fd);
        }
        fds.push((Descriptor::Log, log_file::create(self.log_bytes).expect("a log")));
        let os_pid = child.id() as i32;
        self.groups.lock().expect("not poisoned").insert(pid, os_pid);
        let kinds = fds.iter().map(|(kind, _)| *kind).collect();
        let fds: Vec<&OwnedFd> = fds.iter().map(|(_, fd)| fd).collect();
        self.tell(&FromKeeper::Started { pid, os_pid, enforcement: enforcement(), fds: kinds }, &fds);
        let keeper = Arc::clone(self);
        Some(std::thread::spawn(move || keeper.wait(pid, child)))
    }

    fn wait(&self, pid: Pid, mut child: Child) {
        let ended = child.wait().expect("our child");
        self.groups.lock().expect("not poisoned").remove(&pid);
        let status = match (ended.code(), ended.signal()) {
            (Some(code), _) => ExitStatus::Code(code as u8),
            (None, Some(number)) => ExitStatus::Signal(number),
            (None, None) => ExitStatus::Lost,
        };
        let exit = Exit { status, time_ms: now_ms(), limit: None, usage: Usage::default() };
        self.tell(&FromKeeper::Exited { pid, exit }, &[]);
        self.tell(&FromKeeper::Ended { pid, usage: Usage::default() }, &[]);
    }
}

/// Starts a program; its terminal is opened for it, pipes are the child's.
fn start(order: &Order) -> io::Result<(Child, Vec<(Descriptor, OwnedFd)>)> {
    let launch = &order.launch;
    let mut command = Command::new(&launch.program);
    command
        .arg0(&launch.argv[0])
        .args(&launch.argv[1..])
        .env_clear()
        .envs(launch.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&launch.cwd)
        .process_group(0);
    let mut fds = Vec::new();
    match order.stdio {
        Stdio::Pipes { stdin } => {
            command.stdin(if stdin { Std::piped() } else { Std::null() });
            command.stdout(Std::piped()).stderr(Std::piped());
        }
        Stdio::Pty(_) => {
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let master = openpt(flags)?;
            unlockpt(&master)?;
            let slave = ioctl_tiocgptpeer(&master, flags)?;
            command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            fds.extend([
                (Descriptor::ScratchRead, read),
                (Descriptor::ScratchWrite, write),
                (Descriptor::Pty, master),
            ]);
        }
    }
    Ok((command.spawn()?, fds))
}

fn signal(group: i32, scope: Scope, signal: Signal) {
    let Some(group) = rustix::process::Pid::from_raw(group) else { return };
    // What has just ended needs no signal.
    let _ = match scope {
        Scope::Leader => kill_process(group, signal),
        Scope::Tree => kill_process_group(group, signal),
    };
}

fn set_nonblocking(fd: &OwnedFd) {
    let flags = fcntl_getfl(fd).expect("flags");
    fcntl_setfl(fd, flags | OFlags::NONBLOCK).expect("flags");
}

fn welcome() -> Welcome {
    Welcome { generation: 1, started_ms: now_ms(), enforcement: enforcement(), note: Vec::new() }
}

fn enforcement() -> Enforcement {
    Enforcement { mode: Mode::None, tier: Tier::None, layers: vec![Layer::CleanEnvironment] }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}
