//! A keeper for tests: real pipes, terminals and programs on the other end of the channel, without a sandbox.

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mhnos_keeper::{
    channel::{
        Adoption, Descriptor, DialFailure, Exit, ExitStatus, Failure, FromKeeper, Order, Pid, Scope, Stage,
        ToKeeper, Usage, Welcome,
    },
    log_file,
    socket::{Blocking, RecvError, Socket},
};
use mhnos_sandbox::{Enforcement, ExtraFdKind, Mode, Stdio, Tier};
use rustix::{
    pipe::{PipeFlags, pipe_with},
    process::{Signal, kill_process, kill_process_group},
    pty::OpenptFlags,
};

/// A port to which connections are neither made nor refused.
pub(crate) const UNANSWERED: u16 = 1;

/// The keeper's side, shared by its threads.
pub(crate) struct Keeper {
    state: Mutex<State>,
    changed: Condvar,
    log_bytes: u64,
    serving: Mutex<Option<thread::JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    socket: Option<Arc<Socket>>,
    generation: u32,
    service_note: Vec<u8>,
    kept: BTreeMap<Pid, Kept>,
    forgotten: Vec<Pid>,
    orders: usize,
    drained: bool,
    /// Exits are not told while set: to see what a bridge does meanwhile.
    mute: bool,
}

struct Kept {
    os_pid: i32,
    fds: Vec<(Descriptor, OwnedFd)>,
    note: Vec<u8>,
    exit: Option<Exit>,
    usage: Option<Usage>,
}

fn enforcement() -> Enforcement {
    Enforcement { mode: Mode::None, tier: Tier::None, layers: Vec::new() }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

impl Keeper {
    pub(crate) fn new(log_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            log_bytes,
            serving: Mutex::default(),
        })
    }

    /// The channel of a new bridge, after all that the old one sent has been read.
    pub(crate) fn channel(self: &Arc<Self>) -> OwnedFd {
        if let Some(serving) = self.serving.lock().expect("lock").take() {
            serving.join().expect("no panic");
        }
        let (ours, theirs) = Socket::pair(Blocking::Yes).expect("socketpair");
        let ours = Arc::new(ours);
        let mut state = self.state.lock().expect("lock");
        state.socket = Some(ours.clone());
        state.generation += 1;
        drop(state);
        let keeper = self.clone();
        *self.serving.lock().expect("lock") = Some(thread::spawn(move || keeper.serve(&ours)));
        theirs.into_fd()
    }

    /// Closes the channel, as a keeper that is killed does.
    pub(crate) fn vanish(&self) {
        if let Some(socket) = self.state.lock().expect("lock").socket.take() {
            rustix::net::shutdown(socket.as_fd(), rustix::net::Shutdown::Both).expect("shutdown");
        }
    }

    pub(crate) fn ask_to_drain(&self) {
        self.tell(&mut self.state.lock().expect("lock"), &FromKeeper::Drain, &[]);
    }

    /// Says something that is no message, as one is whose descriptors found no place.
    pub(crate) fn mumble(&self) {
        let state = self.state.lock().expect("lock");
        let socket = state.socket.as_ref().expect("a bridge");
        rustix::net::send(socket.as_fd(), &[255], rustix::net::SendFlags::empty()).expect("said");
    }

    /// Holds this for the next bridge, as if one had said so that says what it likes.
    pub(crate) fn note(&self, note: &[u8]) {
        self.state.lock().expect("lock").service_note = note.to_vec();
    }

    pub(crate) fn mute(&self, mute: bool) {
        self.state.lock().expect("lock").mute = mute;
    }

    pub(crate) fn orders(&self) -> usize {
        self.state.lock().expect("lock").orders
    }

    pub(crate) fn drained(&self) -> bool {
        self.wait(|state| state.drained);
        true
    }

    /// Waits until the bridge has had these forgotten, and returns what is still kept.
    pub(crate) fn forgotten(&self, pids: &[Pid]) -> Vec<Pid> {
        self.wait(|state| pids.iter().all(|pid| state.forgotten.contains(pid)));
        self.state.lock().expect("lock").kept.keys().copied().collect()
    }

    fn wait(&self, done: impl Fn(&State) -> bool) {
        let state = self.state.lock().expect("lock");
        let waiting = self.changed.wait_timeout_while(state, Duration::from_secs(20), |state| !done(state));
        assert!(!waiting.expect("lock").1.timed_out(), "the keeper waits in vain");
    }

    fn serve(self: Arc<Self>, socket: &Arc<Socket>) {
        loop {
            match socket.recv::<ToKeeper>() {
                Ok(received) => self.handle(received.message),
                Err(RecvError::WouldBlock) => thread::yield_now(),
                Err(_) => return,
            }
            self.changed.notify_all();
        }
    }

    fn handle(self: &Arc<Self>, message: ToKeeper) {
        let mut state = self.state.lock().expect("lock");
        match message {
            ToKeeper::Hello => self.welcome(&mut state),
            ToKeeper::Spawn(order) => self.start(&mut state, order),
            ToKeeper::Signal { pid, signal, scope } => {
                let Some(kept) = state.kept.get(&pid).filter(|kept| kept.usage.is_none()) else { return };
                let os_pid = rustix::process::Pid::from_raw(kept.os_pid).expect("pid");
                let signal = Signal::from_named_raw(signal).expect("signal");
                _ = match scope {
                    Scope::Leader => kill_process(os_pid, signal),
                    Scope::Tree => kill_process_group(os_pid, signal),
                };
            }
            ToKeeper::CloseStdin { pid } => {
                let kept = state.kept.get_mut(&pid).expect("known");
                kept.fds.retain(|(name, _)| *name != Descriptor::Stdin);
            }
            ToKeeper::Note { pid: 0, note } => state.service_note = note,
            ToKeeper::Note { pid, note } => {
                if let Some(kept) = state.kept.get_mut(&pid) {
                    kept.note = note;
                }
            }
            ToKeeper::Forget { pid } => {
                let kept = state.kept.remove(&pid).expect("known");
                assert!(kept.usage.is_some(), "a living process was forgotten");
                state.forgotten.push(pid);
            }
            ToKeeper::Members { pid } => {
                let members = FromKeeper::Members { pid, members: Vec::new() };
                self.tell(&mut state, &members, &[]);
            }
            ToKeeper::Dial { port: UNANSWERED, .. } => {}
            ToKeeper::Dial { token, .. } => {
                let outcome = Err(DialFailure::Refused);
                self.tell(&mut state, &FromKeeper::Dialed { token, outcome }, &[]);
            }
            ToKeeper::Drained => state.drained = true,
        }
    }

    fn welcome(&self, state: &mut State) {
        let (generation, note) = (state.generation, state.service_note.clone());
        let welcome = Welcome { generation, started_ms: 1, enforcement: enforcement(), note };
        self.tell(state, &FromKeeper::Welcome(welcome), &[]);
        let kept = std::mem::take(&mut state.kept);
        for (pid, kept) in &kept {
            let adoption = Adoption {
                pid: *pid,
                os_pid: kept.os_pid,
                enforcement: enforcement(),
                note: kept.note.clone(),
                exit: kept.exit,
                usage: kept.usage,
                fds: kept.fds.iter().map(|(name, _)| *name).collect(),
                ports: Vec::new(),
            };
            let fds: Vec<_> = kept.fds.iter().map(|(_, fd)| fd).collect();
            self.tell(state, &FromKeeper::Adopt(adoption), &fds);
        }
        state.kept = kept;
        self.tell(state, &FromKeeper::Adopted, &[]);
    }

    #[expect(clippy::unused_self, reason = "reads as what the keeper does")]
    fn tell(&self, state: &mut State, message: &FromKeeper, fds: &[&OwnedFd]) {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        if let Some(socket) = &state.socket {
            // A bridge that has gone is replaced.
            while socket.send(message, &fds).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                thread::yield_now();
            }
        }
    }

    fn start(self: &Arc<Self>, state: &mut State, order: Order) {
        state.orders += 1;
        let pid = order.pid;
        match launch(&order, self.log_bytes) {
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(0);
                let failure = Failure { stage: Stage::Exec, errno, detail: order.launch.program };
                self.tell(state, &FromKeeper::Refused { pid, failure }, &[]);
            }
            Ok((child, fds)) => {
                let os_pid = child.id() as i32;
                let names = fds.iter().map(|(name, _)| *name).collect();
                let started = FromKeeper::Started { pid, os_pid, enforcement: enforcement(), fds: names };
                self.tell(state, &started, &fds.iter().map(|(_, fd)| fd).collect::<Vec<_>>());
                state.kept.insert(pid, Kept { os_pid, fds, note: order.note, exit: None, usage: None });
                let keeper = self.clone();
                thread::spawn(move || keeper.reap(pid, child));
            }
        }
    }

    fn reap(&self, pid: Pid, mut child: Child) {
        let status = child.wait().expect("wait");
        let status = match (status.code(), status.signal()) {
            (Some(code), _) => ExitStatus::Code(code as u8),
            (None, signal) => ExitStatus::Signal(signal.expect("a code or a signal")),
        };
        let exit = Exit { status, time_ms: now_ms(), limit: None, usage: Usage::default() };
        self.ended(|kept| kept.exit = Some(exit), pid, &FromKeeper::Exited { pid, exit });
        let group = rustix::process::Pid::from_raw(child.id() as i32).expect("pid");
        while rustix::process::test_kill_process_group(group).is_ok() {
            super::pace::pause(Duration::from_millis(1));
        }
        let usage = Usage { cpu_us: 5000, max_rss: 1 };
        self.ended(|kept| kept.usage = Some(usage), pid, &FromKeeper::Ended { pid, usage });
    }

    fn ended(&self, note: impl FnOnce(&mut Kept), pid: Pid, message: &FromKeeper) {
        let mut state = self.state.lock().expect("lock");
        note(state.kept.get_mut(&pid).expect("kept"));
        if !state.mute {
            self.tell(&mut state, message, &[]);
        }
    }
}

fn pipe(flags: PipeFlags) -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC | flags).expect("pipe")
}

fn ours(fd: OwnedFd) -> OwnedFd {
    rustix::io::ioctl_fionbio(&fd, true).expect("nonblocking");
    fd
}

fn launch(order: &Order, log_bytes: u64) -> io::Result<(Child, Vec<(Descriptor, OwnedFd)>)> {
    let launch = &order.launch;
    let mut fds = vec![(Descriptor::Log, log_file::create(log_bytes)?)];
    let mut command;
    match order.stdio {
        Stdio::Pty(size) => {
            let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
            rustix::pty::unlockpt(&master)?;
            let winsize =
                rustix::termios::Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
            rustix::termios::tcsetwinsize(&master, winsize)?;
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
            command = Command::new("setsid");
            command.arg("--ctty").arg(&launch.program);
            command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
            let scratch = pipe(PipeFlags::NONBLOCK);
            fds.push((Descriptor::ScratchRead, scratch.0));
            fds.push((Descriptor::ScratchWrite, scratch.1));
            fds.push((Descriptor::Pty, ours(master)));
        }
        Stdio::Pipes { stdin } => {
            command = Command::new(&launch.program);
            command.process_group(0);
            let (out, err) = (pipe(PipeFlags::empty()), pipe(PipeFlags::empty()));
            command.stdout(out.1).stderr(err.1).stdin(std::process::Stdio::null());
            fds.push((Descriptor::Stdout, ours(out.0)));
            fds.push((Descriptor::Stderr, ours(err.0)));
            if stdin {
                let input = pipe(PipeFlags::empty());
                command.stdin(input.0);
                fds.push((Descriptor::Stdin, ours(input.1)));
            }
            if launch.extra_fds.iter().any(|extra| extra.kind == ExtraFdKind::Report) {
                // Only 0, 1 and 2 can be given to a child without unsafe code: stderr has to do.
                let (_, stderr) = fds.remove(2);
                fds.insert(2, (Descriptor::Report, stderr));
            }
        }
    }
    let child = command.args(&launch.argv[1..]).env_clear().envs(launch.env.iter().cloned()).spawn()?;
    Ok((child, fds))
}
