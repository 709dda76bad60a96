//! The keeper with a scripted bridge: real sandboxes, real programs.
//!
//! Without a harness, because the keeper must be single-threaded: `main` starts itself anew for each test as
//! a keeper, which starts it once more as the bridge that plays the test's script.

#![allow(clippy::disallowed_methods, reason = "tests start programs and read their environment")]

use std::{
    collections::BTreeMap,
    io::Read,
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use mhnos_keeper::{
    BRIDGE_CHANNEL_FD, BridgeCommand, Settings,
    channel::{
        Descriptor, Exit, ExitStatus, Failure, FromKeeper, Isolation, LimitHit, Order, Pid, Scope, Stage,
        ToKeeper,
    },
    socket::Socket,
};
use mhnos_sandbox::{
    Launch, Limits, Mode, Policy, Stdio, Tier, WindowSize,
    policy::{Source, Workspace},
    stage, sys,
};

type Script = fn(&mut Bridge);

const TESTS: [(&str, Script); 10] = [
    (
        "memory_beyond_the_limit_ends_the_program_and_says_so",
        memory_beyond_the_limit_ends_the_program_and_says_so,
    ),
    ("a_program_runs_and_its_exit_is_told", a_program_runs_and_its_exit_is_told),
    ("a_missing_program_or_directory_is_refused", a_missing_program_or_directory_is_refused),
    ("orders_that_are_wrong_are_refused", orders_that_are_wrong_are_refused),
    ("a_terminal_is_one_of_the_sandbox", a_terminal_is_one_of_the_sandbox),
    ("a_killed_tree_leaves_nothing", a_killed_tree_leaves_nothing),
    ("programs_share_a_sandbox_unless_private", programs_share_a_sandbox_unless_private),
    ("the_host_does_not_show", the_host_does_not_show),
    ("a_killed_supervisor_takes_its_tree_along", a_killed_supervisor_takes_its_tree_along),
    ("a_second_bridge_adopts", a_second_bridge_adopts),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("keeper") => keeper(&arguments[2], &arguments[3]),
        Some("bridge") => bridge(&arguments[2]),
        filter => suite(filter.filter(|text| !text.starts_with('-'))),
    }
}

fn suite(filter: Option<&str>) -> ExitCode {
    let (mut passed, mut failed) = (0, 0);
    let exe = std::env::current_exe().expect("own path");
    for (name, _) in TESTS.iter().filter(|(name, _)| filter.is_none_or(|text| name.contains(text))) {
        let workspace = std::env::temp_dir().join(format!("mhnos-keeper-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&workspace).expect("workspace");
        let output = Command::new(&exe).arg("keeper").arg(name).arg(&workspace).output().expect("keeper");
        let text = String::from_utf8_lossy(&output.stdout);
        if text.contains("passed") && output.status.success() {
            println!("test {name} ... ok");
            passed += 1;
        } else {
            let log = String::from_utf8_lossy(&output.stderr);
            println!("test {name} ... FAILED ({})\n{text}\n{log}", output.status);
            failed += 1;
        }
        let _ = std::fs::remove_dir_all(&workspace);
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn keeper(name: &str, workspace: &str) -> ExitCode {
    use std::os::unix::fs::MetadataExt;
    let root = rustix::process::geteuid().is_root();
    let current = stage::Account::current();
    let account = if root { stage::Account::for_root(current) } else { current };
    let path = PathBuf::from(workspace).canonicalize().expect("workspace");
    let meta = path.metadata().expect("workspace");
    let mut policy = Policy {
        mode: Mode::Strict,
        workspace: Workspace {
            source: Source { outside: path.clone(), inside: path.clone() },
            identity: (meta.dev(), meta.ino()),
        },
        read_only: Vec::new(),
        uid: account.uid,
        gid: account.gid,
        tier: Tier::None,
        own_ports: Vec::new(),
        filter: Vec::new(),
    };
    let program = std::fs::File::open("/proc/self/exe").expect("own program");
    let cgroups = mhnos_sandbox::Cgroups::prepare(account);
    let mut reserve = None;
    if root {
        stage::hand_over(&path, account).expect("hand over");
        stage::stage(&mut policy).expect("stage");
        reserve = stage::become_account(account).expect("drop root");
    }
    let settings = Settings {
        policy,
        floor: Tier::T3,
        reserve,
        cgroups,
        limits: Limits { memory: 1 << 30, pids: 512, cpu_millis: 1000 },
        log_bytes: 1 << 20,
        bridge: BridgeCommand {
            program: program.into(),
            argv: vec!["mhnos-runtime".into(), "bridge".into(), name.into()],
            env: vec![format!("WORKSPACE={workspace}").into_bytes()],
            files_as: None,
            fds: Vec::new(),
        },
        drain_timeout: Duration::from_secs(10),
        on_ready: None,
    };
    match mhnos_keeper::run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn bridge(name: &str) -> ExitCode {
    let fd = sys::take_inherited(BRIDGE_CHANNEL_FD).expect("channel");
    rustix::io::ioctl_fionbio(&fd, false).expect("blocking");
    let mut bridge = Bridge::greet(Socket::from_fd(fd));
    let script = TESTS.iter().find(|(test, _)| *test == name).expect("test").1;
    script(&mut bridge);
    println!("passed");
    let keeper = rustix::process::getppid().expect("keeper");
    sys::kill(keeper, libc::SIGTERM).expect("stop the keeper");
    bridge.until(|message| matches!(message, FromKeeper::Drain).then_some(()));
    bridge.send(&ToKeeper::Drained);
    bridge.drained();
    ExitCode::SUCCESS
}

struct Bridge {
    socket: Socket,
    next: Pid,
    generation: u32,
    adopted: Vec<(Pid, Option<Exit>, Vec<u8>)>,
    fds: BTreeMap<Pid, Vec<(Descriptor, OwnedFd)>>,
    backlog: Vec<FromKeeper>,
}

impl Bridge {
    fn greet(socket: Socket) -> Self {
        let mut bridge = Self {
            socket,
            next: 1000,
            generation: 0,
            adopted: Vec::new(),
            fds: BTreeMap::new(),
            backlog: Vec::new(),
        };
        bridge.send(&ToKeeper::Hello);
        loop {
            match bridge.receive() {
                FromKeeper::Welcome(welcome) => bridge.generation = welcome.generation,
                FromKeeper::Adopt(adoption) => {
                    bridge.next = bridge.next.max(adoption.pid + 1);
                    bridge.adopted.push((adoption.pid, adoption.exit, adoption.note));
                }
                FromKeeper::Adopted => return bridge,
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    fn send(&self, message: &ToKeeper) {
        self.socket.send(message, &[]).expect("send");
    }

    fn receive(&mut self) -> FromKeeper {
        let received = self.socket.recv::<FromKeeper>().expect("receive");
        let (pid, names) = match &received.message {
            FromKeeper::Started { pid, fds, .. } => (*pid, fds.clone()),
            FromKeeper::Adopt(adoption) => (adoption.pid, adoption.fds.clone()),
            _ => return received.message,
        };
        assert_eq!(names.len(), received.fds.len());
        self.fds.insert(pid, names.into_iter().zip(received.fds).collect());
        received.message
    }

    /// The first message, waiting or yet to come, that `pick` takes; others wait for later calls.
    fn until<T>(&mut self, mut pick: impl FnMut(&FromKeeper) -> Option<T>) -> T {
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

    fn drained(&mut self) {
        while self.socket.recv::<FromKeeper>().is_ok() {}
    }

    fn order(&mut self, argv: &[&str], stdio: Stdio, isolation: Isolation) -> Pid {
        let limits = Limits { memory: 1 << 30, pids: 512, cpu_millis: 1000 };
        self.order_within(argv, stdio, isolation, limits)
    }

    fn order_within(&mut self, argv: &[&str], stdio: Stdio, isolation: Isolation, limits: Limits) -> Pid {
        let pid = self.next;
        self.next += 1;
        let launch = Launch {
            program: argv[0].into(),
            argv: argv.iter().map(|&text| text.into()).collect(),
            env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
            cwd: std::env::var("WORKSPACE").expect("workspace"),
            extra_fds: Vec::new(),
        };
        self.send(&ToKeeper::Spawn(Order { pid, launch, stdio, isolation, limits, note: b"note".to_vec() }));
        pid
    }

    fn start(&mut self, script: &str) -> Pid {
        let pid = self.order(&["sh", "-c", script], Stdio::Pipes { stdin: false }, Isolation::Shared);
        self.started(pid).expect("starts");
        pid
    }

    fn started(&mut self, pid: Pid) -> Result<i32, Failure> {
        self.until(|message| match message {
            FromKeeper::Started { pid: who, os_pid, .. } if *who == pid => Some(Ok(*os_pid)),
            FromKeeper::Refused { pid: who, failure } if *who == pid => Some(Err(failure.clone())),
            _ => None,
        })
    }

    fn exit(&mut self, pid: Pid) -> ExitStatus {
        self.exit_record(pid).status
    }

    fn exit_record(&mut self, pid: Pid) -> Exit {
        self.until(|message| match message {
            FromKeeper::Exited { pid: who, exit } if *who == pid => Some(*exit),
            _ => None,
        })
    }

    fn ended(&mut self, pid: Pid) {
        self.until(|message| {
            matches!(message, FromKeeper::Ended { pid: who, .. } if *who == pid).then_some(())
        });
    }

    fn fd(&mut self, pid: Pid, descriptor: Descriptor) -> OwnedFd {
        let fds = self.fds.get_mut(&pid).expect("started");
        let index = fds.iter().position(|(name, _)| *name == descriptor).expect("descriptor");
        let fd = fds.remove(index).1;
        rustix::io::ioctl_fionbio(&fd, false).expect("blocking");
        fd
    }

    /// Everything the program writes to stdout.
    fn output(&mut self, pid: Pid) -> String {
        let mut text = String::new();
        let fd = self.fd(pid, Descriptor::Stdout);
        std::fs::File::from(fd).read_to_string(&mut text).expect("read");
        text
    }

    fn run(&mut self, script: &str) -> (String, ExitStatus) {
        let pid = self.start(script);
        let text = self.output(pid);
        let status = self.exit(pid);
        self.ended(pid);
        (text, status)
    }
}

fn a_program_runs_and_its_exit_is_told(bridge: &mut Bridge) {
    assert_eq!(bridge.run("echo hello; exit 7"), ("hello\n".into(), ExitStatus::Code(7)));
    assert_eq!(bridge.run("kill -9 $$").1, ExitStatus::Signal(9));
}

fn a_missing_program_or_directory_is_refused(bridge: &mut Bridge) {
    let pid = bridge.order(&["no-such-program"], Stdio::Pipes { stdin: false }, Isolation::Shared);
    let failure = bridge.started(pid).expect_err("must not start");
    assert_eq!((failure.stage, failure.errno), (Stage::Exec, libc::ENOENT));
    let pid = bridge.order(&["/etc/passwd"], Stdio::Pipes { stdin: false }, Isolation::Private);
    let failure = bridge.started(pid).expect_err("must not start");
    assert_eq!((failure.stage, failure.errno), (Stage::Exec, libc::EACCES));
}

fn orders_that_are_wrong_are_refused(bridge: &mut Bridge) {
    let pid = bridge.order(&["sh", "-c", "a\0b"], Stdio::Pipes { stdin: false }, Isolation::Shared);
    assert_eq!(bridge.started(pid).expect_err("NUL").stage, Stage::Order);
    bridge.next = pid;
    let pid = bridge.order(&["true"], Stdio::Pipes { stdin: false }, Isolation::Shared);
    assert_eq!(bridge.started(pid).expect_err("reused pid").stage, Stage::Order);
    let nothing = Stdio::Pty(WindowSize { cols: 0, rows: 1 });
    let pid = bridge.order(&["true"], nothing, Isolation::Shared);
    assert_eq!(bridge.started(pid).expect_err("no columns").stage, Stage::Order);
    assert_eq!(bridge.run("echo still here").0, "still here\n");
}

fn a_terminal_is_one_of_the_sandbox(bridge: &mut Bridge) {
    let size = WindowSize { cols: 97, rows: 31 };
    let pid = bridge.order(&["sh", "-c", "tty; stty size; exit 3"], Stdio::Pty(size), Isolation::Shared);
    bridge.started(pid).expect("starts");
    let mut master = std::fs::File::from(bridge.fd(pid, Descriptor::Pty));
    let mut text = Vec::new();
    // The end of a terminal is EIO.
    let end = master.read_to_end(&mut text).expect_err("EIO at the end");
    assert_eq!(end.raw_os_error(), Some(libc::EIO));
    assert_eq!(String::from_utf8_lossy(&text), "/dev/pts/0\r\n31 97\r\n");
    assert_eq!(bridge.exit(pid), ExitStatus::Code(3));
}

fn a_killed_tree_leaves_nothing(bridge: &mut Bridge) {
    // A stopped child, a double fork, a session of its own, and one that ignores SIGTERM.
    let script = "trap '' TERM; (setsid sh -c 'trap \"\" TERM; sleep 1000 & echo a; wait' &) ; sleep 1000 & kill -STOP $!; \
                  echo b; wait; sleep 1000";
    let pid = bridge.start(script);
    let mut out = std::fs::File::from(bridge.fd(pid, Descriptor::Stdout));
    let mut two_lines = [0; 4];
    out.read_exact(&mut two_lines).expect("both are up");
    bridge.send(&ToKeeper::Signal { pid, signal: libc::SIGKILL, scope: Scope::Tree });
    assert_eq!(bridge.exit(pid), ExitStatus::Signal(libc::SIGKILL));
    bridge.ended(pid);
    assert_eq!(bridge.run("pgrep -c sleep || true").0.trim(), "0");
}

fn programs_share_a_sandbox_unless_private(bridge: &mut Bridge) {
    let pid = bridge.start("echo x > /tmp/shared; exec sleep 1000");
    while bridge.run("cat /tmp/shared").0 != "x\n" {}
    let private = bridge.order(
        &["sh", "-c", "cat /tmp/shared; pgrep sleep; echo -n"],
        Stdio::Pipes { stdin: false },
        Isolation::Private,
    );
    bridge.started(private).expect("starts");
    assert_eq!(bridge.output(private), "");
    bridge.send(&ToKeeper::Signal { pid, signal: libc::SIGTERM, scope: Scope::Leader });
    assert_eq!(bridge.exit(pid), ExitStatus::Signal(libc::SIGTERM));
}

fn the_host_does_not_show(bridge: &mut Bridge) {
    let (text, _) = bridge.run(
        "ls / | tr '\\n' ' '; hostname; id -u; cat /proc/1/cmdline | tr '\\0' ' '; cat /proc/1/environ 2>&1; \
         touch /usr/x 2>&1; touch /etc/x 2>&1; grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status; ls /proc/self/fd | wc -l; \
         cat /etc/shadow 2>&1; echo ok > \"$PWD\"/here; cat /workspace/here; ps -e | wc -l",
    );
    for expected in [
        "mhnos",
        "mhnos-init",
        "Read-only file system",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
        "No such file",
        "ok\n",
    ] {
        assert!(text.contains(expected), "{expected:?} in {text}");
    }
    assert!(!text.contains("keeper"), "{text}");
}

fn a_killed_supervisor_takes_its_tree_along(bridge: &mut Bridge) {
    let pid = bridge.start("(setsid sleep 1000 &); (setsid sleep 1000 &); echo; exec sleep 1000");
    let mut out = std::fs::File::from(bridge.fd(pid, Descriptor::Stdout));
    out.read_exact(&mut [0]).expect("up");
    let (_, status) = bridge.run("kill -9 $(pgrep mhnos-supervise | head -1)");
    assert_eq!(status, ExitStatus::Code(0));
    assert_eq!(bridge.exit(pid), ExitStatus::Lost);
    bridge.ended(pid);
    while bridge.run("pgrep -c sleep || true").0.trim() != "0" {}
}

fn a_second_bridge_adopts(bridge: &mut Bridge) {
    if bridge.generation == 1 {
        let ended = bridge.start("echo early; exit 5");
        bridge.exit(ended);
        bridge.ended(ended);
        bridge.start("echo before; exec sleep 1000");
        std::process::exit(9);
    }
    let adopted = std::mem::take(&mut bridge.adopted);
    assert_eq!(adopted.len(), 2, "{adopted:?}");
    assert_eq!(adopted[0].1.map(|exit| exit.status), Some(ExitStatus::Code(5)));
    assert!(adopted[1].1.is_none());
    assert_eq!(adopted[1].2, b"note");
    bridge.send(&ToKeeper::Forget { pid: adopted[0].0 });
    assert_eq!(bridge.output(adopted[0].0), "early\n");
    let pid = adopted[1].0;
    bridge.send(&ToKeeper::Signal { pid, signal: libc::SIGKILL, scope: Scope::Tree });
    bridge.exit(pid);
    assert_eq!(bridge.output(pid), "before\n");
}

fn memory_beyond_the_limit_ends_the_program_and_says_so(bridge: &mut Bridge) {
    let limits = Limits { memory: 64 << 20, pids: 64, cpu_millis: 1000 };
    let hungry = ["python3", "-c", "x = bytearray(300 << 20); print(len(x))"];
    let pid = bridge.order_within(&hungry, Stdio::Pipes { stdin: false }, Isolation::Shared, limits);
    bridge.started(pid).expect("starts");
    let exit = bridge.exit_record(pid);
    assert_eq!((exit.status, exit.limit), (ExitStatus::Signal(libc::SIGKILL), Some(LimitHit::Memory)));
    // The positive control: with room it works.
    let roomy = Limits { memory: 512 << 20, ..limits };
    let pid = bridge.order_within(&hungry, Stdio::Pipes { stdin: false }, Isolation::Shared, roomy);
    bridge.started(pid).expect("starts");
    assert_eq!(bridge.exit(pid), ExitStatus::Code(0));
}
