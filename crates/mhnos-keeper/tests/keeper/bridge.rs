//! The bridge's part, played by a test: orders, and what is told about them.

use std::{
    collections::BTreeMap,
    io::Read,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use mhnos_keeper::{
    channel::{Descriptor, Exit, ExitStatus, Failure, FromKeeper, Isolation, Order, Pid, Scope, ToKeeper},
    socket::Socket,
};
use mhnos_sandbox::{Enforcement, ExtraFd, Launch, Layer, Limits, Stdio, Tier};

use crate::proc;

/// What plays the bridge's part in a test.
pub(crate) struct Bridge {
    socket: Socket,
    pub(crate) next: Pid,
    pub(crate) generation: u32,
    pub(crate) enforcement: Option<Enforcement>,
    pub(crate) adopted: Vec<(Pid, Option<Exit>, Vec<u8>)>,
    /// Those of the adopted of which nothing is left.
    pub(crate) over: Vec<Pid>,
    /// Those an earlier bridge has ordered of which nothing else is known yet.
    pub(crate) starting: Vec<Pid>,
    pub(crate) fds: BTreeMap<Pid, Vec<(Descriptor, OwnedFd)>>,
    /// Connections, by their tokens.
    pub(crate) dialed: BTreeMap<u32, OwnedFd>,
    /// Ports of the adopted.
    pub(crate) adopted_ports: Vec<(Pid, u16)>,
    backlog: Vec<FromKeeper>,
}

impl Bridge {
    pub(crate) fn greet(socket: Socket) -> Self {
        let mut bridge = Self {
            socket,
            next: 1000,
            generation: 0,
            enforcement: None,
            adopted: Vec::new(),
            over: Vec::new(),
            starting: Vec::new(),
            fds: BTreeMap::new(),
            dialed: BTreeMap::new(),
            adopted_ports: Vec::new(),
            backlog: Vec::new(),
        };
        bridge.send(&ToKeeper::Hello);
        loop {
            match bridge.receive() {
                FromKeeper::Welcome(welcome) => {
                    bridge.generation = welcome.generation;
                    bridge.enforcement = Some(welcome.enforcement);
                }
                FromKeeper::Adopt(adoption) => {
                    bridge.over.extend(adoption.usage.map(|_| adoption.pid));
                    bridge.next = bridge.next.max(adoption.pid.saturating_add(1));
                    let ports = adoption.ports.iter().map(|port| (adoption.pid, port.port));
                    bridge.adopted_ports.extend(ports);
                    bridge.adopted.push((adoption.pid, adoption.exit, adoption.note));
                }
                FromKeeper::Network { .. } => {}
                FromKeeper::Starting { pid } => bridge.starting.push(pid),
                FromKeeper::Adopted => return bridge,
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    pub(crate) fn send(&self, message: &ToKeeper) {
        // A long message is a descriptor. As many of those are on their way as may be (unix(7)), and the keeper has
        // not had its turn.
        let too_many = |error: &std::io::Error| error.raw_os_error() == Some(libc::ETOOMANYREFS);
        while let Err(error) = self.socket.send(message, &[]) {
            assert!(too_many(&error), "send: {error}");
            std::thread::yield_now();
        }
    }

    /// Says hello again and again, until nobody can hear it any more.
    pub(crate) fn babble(&self) {
        while self.socket.send(&ToKeeper::Hello, &[]).is_ok() {}
    }

    /// The channel itself, for what is no message.
    pub(crate) fn channel(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn receive(&mut self) -> FromKeeper {
        let received = self.socket.recv::<FromKeeper>().expect("receive");
        let (pid, names) = match &received.message {
            FromKeeper::Started { pid, fds, .. } => (*pid, fds.clone()),
            FromKeeper::Adopt(adoption) => (adoption.pid, adoption.fds.clone()),
            FromKeeper::Dialed { token, .. } => {
                self.dialed.extend(received.fds.into_iter().next().map(|fd| (*token, fd)));
                return received.message;
            }
            _ => return received.message,
        };
        assert_eq!(names.len(), received.fds.len());
        self.fds.insert(pid, names.into_iter().zip(received.fds).collect());
        received.message
    }

    /// The first message, waiting or yet to come, that `pick` takes; others wait for later calls.
    pub(crate) fn until<T>(&mut self, mut pick: impl FnMut(&FromKeeper) -> Option<T>) -> T {
        if let Some(index) = self.backlog.iter().position(|message| pick(message).is_some()) {
            return pick(&self.backlog.remove(index)).expect("picked");
        }
        loop {
            let message = self.receive();
            match pick(&message) {
                Some(found) => return found,
                None => self.backlog.push(message),
            }
        }
    }

    pub(crate) fn drained(&mut self) {
        while self.socket.recv::<FromKeeper>().is_ok() {}
    }

    pub(crate) fn order(&mut self, argv: &[&str], stdio: Stdio, isolation: Isolation) -> Pid {
        let limits = Limits { memory: 1 << 30, pids: 512, cpu_millis: 1000 };
        self.order_within(argv, stdio, isolation, limits)
    }

    pub(crate) fn order_within(
        &mut self,
        argv: &[&str],
        stdio: Stdio,
        isolation: Isolation,
        limits: Limits,
    ) -> Pid {
        self.order_all(argv, Vec::new(), stdio, isolation, limits)
    }

    /// A program with these descriptors beside 0, 1 and 2.
    pub(crate) fn order_with(&mut self, argv: &[&str], extra_fds: Vec<ExtraFd>) -> Pid {
        let limits = Limits { memory: 1 << 30, pids: 512, cpu_millis: 1000 };
        self.order_all(argv, extra_fds, Stdio::Pipes { stdin: false }, Isolation::Shared, limits)
    }

    fn order_all(
        &mut self,
        argv: &[&str],
        extra_fds: Vec<ExtraFd>,
        stdio: Stdio,
        isolation: Isolation,
        limits: Limits,
    ) -> Pid {
        let pid = self.next;
        self.next = self.next.saturating_add(1);
        let launch = Launch {
            program: argv[0].into(),
            argv: argv.iter().map(|&text| text.into()).collect(),
            env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
            cwd: std::env::var("WORKSPACE").expect("workspace"),
            extra_fds,
        };
        self.send(&ToKeeper::Spawn(Order { pid, launch, stdio, isolation, limits, note: b"note".to_vec() }));
        pid
    }

    pub(crate) fn start(&mut self, script: &str) -> Pid {
        let pid = self.order(&["sh", "-c", script], Stdio::Pipes { stdin: false }, Isolation::Shared);
        self.started(pid).expect("starts");
        pid
    }

    pub(crate) fn started(&mut self, pid: Pid) -> Result<i32, Failure> {
        self.until(|message| match message {
            FromKeeper::Started { pid: who, os_pid, .. } if *who == pid => Some(Ok(*os_pid)),
            FromKeeper::Refused { pid: who, failure } if *who == pid => Some(Err(failure.clone())),
            _ => None,
        })
    }

    pub(crate) fn exit(&mut self, pid: Pid) -> ExitStatus {
        self.exit_record(pid).status
    }

    pub(crate) fn exit_record(&mut self, pid: Pid) -> Exit {
        self.until(|message| match message {
            FromKeeper::Exited { pid: who, exit } if *who == pid => Some(*exit),
            _ => None,
        })
    }

    pub(crate) fn ended(&mut self, pid: Pid) {
        self.until(|message| {
            matches!(message, FromKeeper::Ended { pid: who, .. } if *who == pid).then_some(())
        });
    }

    pub(crate) fn fd(&mut self, pid: Pid, descriptor: Descriptor) -> OwnedFd {
        let fds = self.fds.get_mut(&pid).expect("started");
        let index = fds.iter().position(|(name, _)| *name == descriptor).expect("descriptor");
        let fd = fds.remove(index).1;
        rustix::io::ioctl_fionbio(&fd, false).expect("blocking");
        fd
    }

    /// Everything the program writes to stdout.
    pub(crate) fn output(&mut self, pid: Pid) -> String {
        let mut text = String::new();
        let fd = self.fd(pid, Descriptor::Stdout);
        std::fs::File::from(fd).read_to_string(&mut text).expect("read");
        text
    }

    pub(crate) fn run(&mut self, script: &str) -> (String, ExitStatus) {
        let pid = self.start(script);
        let text = self.output(pid);
        let status = self.exit(pid);
        self.ended(pid);
        (text, status)
    }

    /// The tier the keeper says it has.
    pub(crate) fn tier(&self) -> Tier {
        self.enforcement.as_ref().expect("welcomed").tier
    }

    pub(crate) fn has(&self, layer: Layer) -> bool {
        self.enforcement.as_ref().expect("welcomed").layers.contains(&layer)
    }

    /// Whether programs see a process table of their own.
    pub(crate) fn has_own_processes(&self) -> bool {
        matches!(self.tier(), Tier::T1 | Tier::T2)
    }

    pub(crate) fn kill(&self, pid: Pid) {
        self.send(&ToKeeper::Signal { pid, signal: libc::SIGKILL, scope: Scope::Tree });
    }

    /// Gives up what is kept of one that has ended, here and by the keeper: descriptors above all, of which systemd gives a service 1024.
    pub(crate) fn forget(&mut self, pid: Pid) {
        self.fds.remove(&pid);
        self.send(&ToKeeper::Forget { pid });
    }

    /// The kind of host, by its name.
    pub(crate) fn host(&self) -> String {
        std::env::var("HOST").expect("host")
    }

    /// Whether a kill reaches all of a tree at once, however it forks.
    pub(crate) fn is_exact(&self) -> bool {
        self.has(Layer::Cgroup) || self.has(Layer::Landlock)
    }

    /// A number of seconds to sleep that no other test's processes have in their arguments.
    pub(crate) fn marker(&self) -> String {
        format!("1000{}.5", std::process::id())
    }

    /// Living processes of this machine with `marker` among their arguments.
    pub(crate) fn alive(&self, marker: &str) -> usize {
        marked(marker).len()
    }

    /// Their numbers.
    pub(crate) fn marked(&self, marker: &str) -> Vec<i32> {
        marked(marker)
    }

    /// The supervisor of a tree whose programs have `marker` among their arguments.
    pub(crate) fn supervisor(&self, marker: &str) -> rustix::process::Pid {
        // In the middle of an exec a process has no arguments.
        loop {
            if let Some(found) = self.supervised(marker).first() {
                return *found;
            }
        }
    }

    /// The supervisors of all such trees there are now.
    pub(crate) fn supervised(&self, marker: &str) -> Vec<rustix::process::Pid> {
        let of = |pid| {
            let parent = proc::parent(pid)?;
            proc::is_supervise(parent).then(|| rustix::process::Pid::from_raw(parent))?
        };
        marked(marker).into_iter().filter_map(of).collect()
    }
}

/// Their numbers.
pub(crate) fn marked(marker: &str) -> Vec<i32> {
    let pids = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let has = |pid: &i32| {
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|argument| argument == marker.as_bytes())
    };
    pids.filter(has).collect()
}
