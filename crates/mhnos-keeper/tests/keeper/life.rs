//! Programs start, end, share and are handed over, on every kind of host.

use std::io::Read;

use mhnos_keeper::channel::{
    Descriptor, ExitStatus, FromKeeper, Isolation, LimitHit, Scope, Stage, ToKeeper,
};
use mhnos_sandbox::{ExtraFd, ExtraFdKind, Layer, Limits, Stdio, Tier, WindowSize, sys};
use mhnos_testing::waive;

use crate::bridge::Bridge;

pub(crate) fn a_program_runs_and_its_exit_is_told(bridge: &mut Bridge) {
    assert_eq!(bridge.run("echo hello; exit 7"), ("hello\n".into(), ExitStatus::Code(7)));
    assert_eq!(bridge.run("kill -9 $$").1, ExitStatus::Signal(9));
}

pub(crate) fn a_missing_program_or_directory_is_refused(bridge: &mut Bridge) {
    let pid = bridge.order(&["no-such-program"], Stdio::Pipes { stdin: false }, Isolation::Shared);
    let failure = bridge.started(pid).expect_err("must not start");
    assert_eq!((failure.stage, failure.errno), (Stage::Exec, libc::ENOENT));
    let pid = bridge.order(&["/etc/passwd"], Stdio::Pipes { stdin: false }, Isolation::Private);
    let failure = bridge.started(pid).expect_err("must not start");
    assert_eq!((failure.stage, failure.errno), (Stage::Exec, libc::EACCES));
}

/// Whatever the service itself has open under that number at the time.
pub(crate) fn a_program_may_be_given_a_descriptor_of_any_number(bridge: &mut Bridge) {
    for numbers in [3..=8, 9..=14, 10..=15] {
        let content = |fd| ExtraFd { fd, kind: ExtraFdKind::Content(format!("{fd} ").into_bytes()) };
        let expected: String = numbers.clone().map(|fd| format!("{fd} ")).collect();
        let script = "exec 2>&1; for fd in $@; do cat <&$fd; done";
        let words: Vec<String> = numbers.clone().map(|fd| fd.to_string()).collect();
        let mut argv = vec!["bash", "-c", script, "bash"];
        argv.extend(words.iter().map(String::as_str));
        let pid = bridge.order_with(&argv, numbers.map(content).collect());
        bridge.started(pid).expect("starts");
        let end = bridge.exit(pid);
        assert_eq!((bridge.output(pid), end), (expected, ExitStatus::Code(0)));
    }
}

pub(crate) fn orders_that_are_wrong_are_refused(bridge: &mut Bridge) {
    let pid = bridge.order(&["sh", "-c", "a\0b"], Stdio::Pipes { stdin: false }, Isolation::Shared);
    assert_eq!(bridge.started(pid).expect_err("NUL").stage, Stage::Order);
    bridge.next = pid;
    let pid = bridge.order(&["true"], Stdio::Pipes { stdin: false }, Isolation::Shared);
    assert_eq!(bridge.started(pid).expect_err("reused pid").stage, Stage::Order);
    let running = bridge.start("exec sleep 1000");
    bridge.next = running;
    bridge.order(&["true"], Stdio::Pipes { stdin: false }, Isolation::Shared);
    assert_eq!(bridge.started(running).expect_err("the pid of a running program").stage, Stage::Order);
    bridge.kill(running);
    assert_eq!(bridge.exit(running), ExitStatus::Signal(libc::SIGKILL));
    let nothing = Stdio::Pty(WindowSize { cols: 0, rows: 1 });
    let pid = bridge.order(&["true"], nothing, Isolation::Shared);
    assert_eq!(bridge.started(pid).expect_err("no columns").stage, Stage::Order);
    assert_eq!(bridge.run("echo still here").0, "still here\n");
}

pub(crate) fn a_terminal_is_one_of_the_sandbox(bridge: &mut Bridge) {
    let size = WindowSize { cols: 97, rows: 31 };
    let pid = bridge.order(&["sh", "-c", "tty; stty size; exit 3"], Stdio::Pty(size), Isolation::Shared);
    bridge.started(pid).expect("starts");
    let mut master = std::fs::File::from(bridge.fd(pid, Descriptor::Pty));
    let mut text = Vec::new();
    // The end of a terminal is EIO.
    let end = master.read_to_end(&mut text).expect_err("EIO at the end");
    assert_eq!(end.raw_os_error(), Some(libc::EIO));
    let text = String::from_utf8_lossy(&text);
    let (tty, size) = text.split_once("\r\n").expect("two lines");
    // The first of its own, or some of the host's.
    let own = if bridge.has_own_processes() { tty == "/dev/pts/0" } else { tty.starts_with("/dev/pts/") };
    assert!(own, "{tty}");
    assert_eq!(size, "31 97\r\n");
    assert_eq!(bridge.exit(pid), ExitStatus::Code(3));
}

pub(crate) fn a_killed_tree_leaves_nothing(bridge: &mut Bridge) {
    // A stopped child, a double fork, a session of its own, and one that ignores SIGTERM.
    let marker = bridge.marker();
    let script = "trap '' TERM; (setsid sh -c 'trap \"\" TERM; sleep 1000 & echo a; wait' &) ; sleep 1000 & kill -STOP $!; \
                  echo b; wait; sleep 1000";
    let pid = bridge.start(&script.replace("1000", &marker));
    let mut out = std::fs::File::from(bridge.fd(pid, Descriptor::Stdout));
    let mut two_lines = [0; 4];
    out.read_exact(&mut two_lines).expect("both are up");
    bridge.kill(pid);
    assert_eq!(bridge.exit(pid), ExitStatus::Signal(libc::SIGKILL));
    bridge.ended(pid);
    assert_eq!(bridge.alive(&marker), 0);
}

/// What a program calls itself need not be text, and stands in what is read of it.
const NAMED_BY_NO_TEXT: &str = "import ctypes\nctypes.CDLL(None).prctl(15, b'\\xff')\n";

pub(crate) fn a_killed_tree_leaves_nothing_of_those_whose_name_is_no_text(bridge: &mut Bridge) {
    let marker = bridge.marker();
    let script = format!(
        "{NAMED_BY_NO_TEXT}import os, time\nif os.fork() == 0:\n  os.setsid()\n  \
         print('up', flush=True)\n  time.sleep(1000)\ntime.sleep(1000)\n"
    );
    let argv = ["python3", "-c", &script, &marker];
    let pid = bridge.order(&argv, Stdio::Pipes { stdin: false }, Isolation::Shared);
    bridge.started(pid).expect("starts");
    let mut out = std::fs::File::from(bridge.fd(pid, Descriptor::Stdout));
    out.read_exact(&mut [0; 3]).expect("both are up");
    bridge.send(&ToKeeper::Members { pid });
    let names = bridge.until(|message| match message {
        FromKeeper::Members { pid: who, members } if *who == pid => {
            Some(members.iter().map(|member| member.name.clone()).collect::<Vec<_>>())
        }
        _ => None,
    });
    assert_eq!(names, ["\u{fffd}"; 2]);
    bridge.kill(pid);
    assert_eq!(bridge.exit(pid), ExitStatus::Signal(libc::SIGKILL));
    bridge.ended(pid);
    assert_eq!(bridge.alive(&marker), 0);
}

/// Processes that fork and end faster than anybody can list them.
const STORM: &str = "
import os, signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print('up', flush=True)
for lane in range(4):
    if os.fork() == 0:
        os.setsid()
        while True:
            try:
                if os.fork() != 0: os._exit(0)
            except OSError: pass
";

pub(crate) fn a_killed_fork_storm_leaves_nothing_and_spares_others(bridge: &mut Bridge) {
    if !bridge.is_exact() {
        return waive(
            "all of it",
            "no domain and no control group: the tree is walked, which a storm can outrun",
        );
    }
    let neighbour = bridge.start("exec sleep 1000");
    let pid = bridge.order(&["python3", "-c", STORM], Stdio::Pipes { stdin: false }, Isolation::Shared);
    bridge.started(pid).expect("starts");
    let mut out = std::fs::File::from(bridge.fd(pid, Descriptor::Stdout));
    out.read_exact(&mut [0; 3]).expect("up");
    bridge.kill(pid);
    bridge.exit(pid);
    bridge.ended(pid);
    // The last of the storm held the other end.
    let mut rest = Vec::new();
    out.read_to_end(&mut rest).expect("end of file");
    bridge.send(&ToKeeper::Signal { pid: neighbour, signal: libc::SIGTERM, scope: Scope::Leader });
    assert_eq!(bridge.exit(neighbour), ExitStatus::Signal(libc::SIGTERM), "alive until now");
}

pub(crate) fn programs_share_a_sandbox_unless_private(bridge: &mut Bridge) {
    let marker = bridge.marker();
    let pid = bridge.start(&format!("echo x > /tmp/shared; exec sleep {marker}"));
    let look = format!("cat /tmp/shared; pgrep -fx 'sleep {marker}' > /dev/null && echo seen");
    // The control, and one process table for all that share a sandbox: until the exec has happened.
    while bridge.run(&look).0 != "x\nseen\n" {}
    let private = bridge.order(&["sh", "-c", &look], Stdio::Pipes { stdin: false }, Isolation::Private);
    bridge.started(private).expect("starts");
    let seen = bridge.output(private);
    let expected = match bridge.tier() {
        Tier::T1 => "",
        // The host's process table, its own files.
        Tier::T2 => "seen\n",
        // Neither.
        Tier::T3Plus | Tier::T3 | Tier::None => "x\nseen\n",
    };
    assert_eq!(seen, expected);
    bridge.send(&ToKeeper::Signal { pid, signal: libc::SIGTERM, scope: Scope::Leader });
    assert_eq!(bridge.exit(pid), ExitStatus::Signal(libc::SIGTERM));
}

pub(crate) fn a_killed_supervisor_takes_its_tree_along(bridge: &mut Bridge) {
    if bridge.tier() == Tier::T3Plus {
        return waive(
            "all of it",
            "supervisors belong to the programs' user, whom this bridge cannot signal",
        );
    }
    let marker = bridge.marker();
    let pid = bridge
        .start(&format!("(setsid sleep {marker} &); (setsid sleep {marker} &); echo; exec sleep {marker}"));
    let mut out = std::fs::File::from(bridge.fd(pid, Descriptor::Stdout));
    out.read_exact(&mut [0]).expect("up");
    let supervisor = bridge.supervisor(&marker);
    sys::kill(supervisor, libc::SIGKILL).expect("kill the supervisor");
    assert_eq!(bridge.exit(pid), ExitStatus::Lost);
    bridge.ended(pid);
    while bridge.alive(&marker) != 0 {}
}

/// By one of its own, say; its init alone would find what it leaves too slowly.
pub(crate) fn a_killed_supervisor_takes_a_fork_storm_along(bridge: &mut Bridge) {
    if bridge.tier() == Tier::T3Plus || !bridge.has(Layer::Cgroup) {
        return waive(
            "all of it",
            "this bridge cannot signal supervisors, or nothing ends a storm without one",
        );
    }
    let marker = bridge.marker();
    // Each is followed by two, up to the limit: what is killed one by one makes room for more.
    let storm = STORM.replace("if os.fork() != 0: os", "if os.fork() != 0 and os.fork() != 0: os");
    let argv = ["python3", "-c", &storm, &marker];
    let pid = bridge.order(&argv, Stdio::Pipes { stdin: false }, Isolation::Shared);
    bridge.started(pid).expect("starts");
    let mut out = std::fs::File::from(bridge.fd(pid, Descriptor::Stdout));
    out.read_exact(&mut [0; 3]).expect("up");
    let supervisor = bridge.supervisor(&marker);
    sys::kill(supervisor, libc::SIGKILL).expect("kill the supervisor");
    bridge.exit(pid);
    bridge.ended(pid);
    // The last of the storm held the other end.
    let mut rest = Vec::new();
    out.read_to_end(&mut rest).expect("end of file");
    assert_eq!(bridge.run("exit 3").1, ExitStatus::Code(3));
}

pub(crate) fn a_second_bridge_adopts(bridge: &mut Bridge) {
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
    let mut out = std::fs::File::from(bridge.fd(pid, Descriptor::Stdout));
    let mut before = [0; 7];
    out.read_exact(&mut before).expect("its output");
    assert_eq!(&before, b"before\n");
    bridge.kill(pid);
    assert_eq!(bridge.exit(pid), ExitStatus::Signal(libc::SIGKILL));
}

/// A child of the bridge has the channel too, and goes on talking.
pub(crate) fn a_bridge_whose_child_goes_on_talking_is_replaced_all_the_same(bridge: &mut Bridge) {
    if bridge.generation == 1 {
        if let sys::Fork::Child = sys::fork(sys::Namespaces::NONE).expect("a child") {
            bridge.babble();
            sys::exit_now(0);
        }
        std::process::exit(9);
    }
    assert_eq!(bridge.run("echo heard").0, "heard\n");
}

pub(crate) fn memory_beyond_the_limit_ends_the_program_and_says_so(bridge: &mut Bridge) {
    let limits = Limits { memory: 64 << 20, pids: 64, cpu_millis: 1000 };
    // Keeps what it has until it is looked at: there may be no control group.
    let hungry = ["python3", "-c", "import sys; x = bytearray(300 << 20); sys.stdin.read()"];
    let pid = bridge.order_within(&hungry, Stdio::Pipes { stdin: true }, Isolation::Shared, limits);
    bridge.started(pid).expect("starts");
    let exit = bridge.exit_record(pid);
    assert_eq!((exit.status, exit.limit), (ExitStatus::Signal(libc::SIGKILL), Some(LimitHit::Memory)));
    // The positive control: with room it works.
    let roomy = Limits { memory: 512 << 20, ..limits };
    let pid = bridge.order_within(&hungry, Stdio::Pipes { stdin: true }, Isolation::Shared, roomy);
    bridge.started(pid).expect("starts");
    bridge.fds.remove(&pid);
    bridge.send(&ToKeeper::CloseStdin { pid });
    assert_eq!(bridge.exit(pid), ExitStatus::Code(0));
}

pub(crate) fn memory_of_many_children_counts_together(bridge: &mut Bridge) {
    let limits = Limits { memory: 128 << 20, pids: 64, cpu_millis: 1000 };
    // None of them is over it alone.
    let family = "import os, time\nfor _ in range(4):\n  if os.fork() == 0:\n    x = bytearray(60 << 20)\n    \
                  time.sleep(1000)\nos._exit(os.wait()[1] != 0)\n";
    for name in ["", NAMED_BY_NO_TEXT] {
        let argv = ["python3", "-c", &format!("{name}{family}")];
        let pid = bridge.order_within(&argv, Stdio::Pipes { stdin: false }, Isolation::Shared, limits);
        bridge.started(pid).expect("starts");
        let exit = bridge.exit_record(pid);
        bridge.kill(pid);
        bridge.ended(pid);
        assert_eq!(exit.limit, Some(LimitHit::Memory), "{name}{exit:?}");
    }
}

pub(crate) fn processes_beyond_the_limit_are_refused_or_ended(bridge: &mut Bridge) {
    let limits = Limits { memory: 1 << 30, pids: 20, cpu_millis: 1000 };
    let bomb = "import os, sys, time\nfor n in range(60):\n  try:\n    if os.fork() == 0: time.sleep(1000)\n  \
                except OSError: sys.exit(9)\ntime.sleep(1000)\n";
    let pid = bridge.order_within(
        &["python3", "-c", bomb],
        Stdio::Pipes { stdin: false },
        Isolation::Shared,
        limits,
    );
    bridge.started(pid).expect("starts");
    let exit = bridge.exit_record(pid);
    let expected =
        if bridge.has(Layer::Cgroup) { ExitStatus::Code(9) } else { ExitStatus::Signal(libc::SIGKILL) };
    assert_eq!((exit.status, exit.limit), (expected, Some(LimitHit::Pids)));
    bridge.kill(pid);
    bridge.ended(pid);
    assert_eq!(bridge.run("exit 3").1, ExitStatus::Code(3), "the neighbours go on");
}

/// Near its limit of processes; when its priority has become the lowest, a child says its own.
const CROWD: &str = "
import os, sys, time
for n in range(70):
    if os.fork() == 0: time.sleep(1000)
given_up = time.monotonic() + 60
while os.getpriority(os.PRIO_PROCESS, 0) != 19 and time.monotonic() < given_up: os.sched_yield()
if os.fork() == 0: print('%2d' % os.getpriority(os.PRIO_PROCESS, 0), flush=True); time.sleep(1000)
time.sleep(1000)
";

pub(crate) fn a_crowd_that_no_control_group_holds_goes_behind_everybody_else(bridge: &mut Bridge) {
    if bridge.has(Layer::Cgroup) {
        return waive("all of it", "the processor is shared out among trees, whatever they are made of");
    }
    let limits = Limits { memory: 1 << 30, pids: 100, cpu_millis: 1000 };
    let argv = ["python3", "-c", CROWD];
    let pid = bridge.order_within(&argv, Stdio::Pipes { stdin: false }, Isolation::Shared, limits);
    bridge.started(pid).expect("starts");
    let mut out = std::fs::File::from(bridge.fd(pid, Descriptor::Stdout));
    let mut said = [0; 3];
    out.read_exact(&mut said).expect("what a child of it says");
    assert_eq!(String::from_utf8_lossy(&said), "19\n");
    assert_ne!(bridge.run("nice").0, "19\n", "others stay before it");
    bridge.kill(pid);
    bridge.exit(pid);
    bridge.ended(pid);
}

/// A program of shells that start two of their own each; where nothing refuses them, as fast as the machine can.
pub(crate) fn a_fork_bomb_is_ended_and_others_work_beside_it(bridge: &mut Bridge) {
    let limits = Limits { memory: 1 << 30, pids: 128, cpu_millis: 1000 };
    let script = "f() { f | f & }; f; wait; exec sleep 1000";
    let pid = bridge.order_within(
        &["bash", "-c", script],
        Stdio::Pipes { stdin: false },
        Isolation::Shared,
        limits,
    );
    bridge.started(pid).expect("starts");
    assert_eq!(bridge.run("echo beside").0, "beside\n");
    if bridge.has(Layer::Cgroup) {
        // Refused there, and tried again and again.
        bridge.kill(pid);
    }
    assert_eq!(bridge.exit_record(pid).status, ExitStatus::Signal(libc::SIGKILL));
    bridge.ended(pid);
    assert_eq!(bridge.run("exit 3").1, ExitStatus::Code(3), "and afterwards");
}

pub(crate) fn memory_that_belongs_to_no_process_counts_or_is_refused(bridge: &mut Bridge) {
    let limits = Limits { memory: 64 << 20, pids: 64, cpu_millis: 1000 };
    let shared = "import mmap, sys\nm = mmap.mmap(-1, 300 << 20)\nfor n in range(300): m.write(b'x' * (1 << 20))\n\
                  sys.stdin.read()\n";
    let file = "import os, sys\ntry: f = os.memfd_create('m')\nexcept OSError: sys.exit(9)\n\
                for n in range(300): os.write(f, b'x' * (1 << 20))\nsys.stdin.read()\n";
    // Detached from, a segment belongs to nobody and stays.
    let segments = "import ctypes, sys\nlibc = ctypes.CDLL(None)\nlibc.shmat.restype = ctypes.c_void_p\nfor n in range(300):\n  \
                    made = libc.shmget(0, 1 << 20, 0o1600)\n  if made < 0: sys.exit(9)\n  at = libc.shmat(made, None, 0)\n  \
                    ctypes.memset(at, 1, 1 << 20)\n  libc.shmdt(ctypes.c_void_p(at))\nsys.stdin.read()\n";
    let grouped = bridge.has(Layer::Cgroup);
    let own_objects = bridge.has_own_processes();
    for (program, refused) in [(shared, false), (file, !grouped), (segments, !grouped || !own_objects)] {
        if program != shared && bridge.tier() == Tier::None {
            // Nothing refuses it and nothing counts it.
            continue;
        }
        let argv = ["python3", "-c", program];
        let pid = bridge.order_within(&argv, Stdio::Pipes { stdin: true }, Isolation::Shared, limits);
        bridge.started(pid).expect("starts");
        let exit = bridge.exit_record(pid);
        bridge.ended(pid);
        let expected = if refused {
            (ExitStatus::Code(9), None)
        } else {
            (ExitStatus::Signal(libc::SIGKILL), Some(LimitHit::Memory))
        };
        assert_eq!((exit.status, exit.limit), expected, "{program}");
    }
}
