//! Programs that go beyond their limits in ways that are easily missed, on every kind of host.

use std::{fs::File, io::Read, time::Duration};

use mhnos_keeper::channel::{Descriptor, ExitStatus, Isolation, LimitHit, ToKeeper};
use mhnos_sandbox::{Layer, Limits, Stdio, cgroup::dirs_of};
use mhnos_testing::{eventually, waive};

use crate::bridge::{Bridge, marked};

/// The leader would outlive its child, and end well.
pub(crate) fn a_program_that_ignores_its_childs_death_by_memory_is_ended_too(bridge: &mut Bridge) {
    let neighbour = bridge.order(&["cat"], Stdio::Pipes { stdin: true }, Isolation::Shared);
    bridge.started(neighbour).expect("starts");
    let limits = Limits { memory: 64 << 20, pids: 64, cpu_millis: 1000 };
    // It keeps what it has until it is looked at, and the leader waits for whatever else there may be to wait for.
    let heedless = "import os, sys\nif os.fork() == 0:\n  x = bytearray(300 << 20)\n  sys.stdin.read()\n  os._exit(0)\n\
                    os.wait()\nsys.stdin.read()\n";
    for isolation in [Isolation::Shared, Isolation::Private] {
        let pid = bridge.order_within(
            &["python3", "-c", heedless],
            Stdio::Pipes { stdin: true },
            isolation,
            limits,
        );
        bridge.started(pid).expect("starts");
        let exit = bridge.exit_record(pid);
        assert_eq!((exit.status, exit.limit), (ExitStatus::Signal(libc::SIGKILL), Some(LimitHit::Memory)));
        bridge.ended(pid);
    }
    bridge.fds.remove(&neighbour);
    bridge.send(&ToKeeper::CloseStdin { pid: neighbour });
    assert_eq!(bridge.exit(neighbour), ExitStatus::Code(0), "the neighbours go on");
}

/// Nobody has to listen for a long time: what a program that is done at once has lost is told.
pub(crate) fn a_program_that_ends_well_without_a_child_killed_for_memory_says_so(bridge: &mut Bridge) {
    if !bridge.has(Layer::Cgroup) {
        return waive("all of it", "a watchdog may come too late for it");
    }
    let limits = Limits { memory: 64 << 20, pids: 64, cpu_millis: 1000 };
    let hasty = "import os\nif os.fork() == 0: x = bytearray(300 << 20)\nos._exit(os.wait()[1] != 9)\n";
    for _ in 0..10 {
        let pid = bridge.order_within(
            &["python3", "-c", hasty],
            Stdio::Pipes { stdin: false },
            Isolation::Shared,
            limits,
        );
        bridge.started(pid).expect("starts");
        let exit = bridge.exit_record(pid);
        bridge.ended(pid);
        assert_eq!(exit.limit, Some(LimitHit::Memory), "{exit:?}");
    }
    // The control, in whatever group it gets.
    let calm = "import os\nif os.fork() == 0: os._exit(0)\nos.wait()\n";
    let pid = bridge.order(&["python3", "-c", calm], Stdio::Pipes { stdin: false }, Isolation::Shared);
    bridge.started(pid).expect("starts");
    let exit = bridge.exit_record(pid);
    assert_eq!((exit.status, exit.limit), (ExitStatus::Code(0), None));
}

/// Where it has no user namespace the kernel counts what else its user runs, too.
pub(crate) fn a_private_process_has_its_share_of_processes_beside_many_others(bridge: &mut Bridge) {
    let crowd = "import os, time\nfor n in range(100):\n  if os.fork() == 0: time.sleep(1000)\nprint('up', flush=True)\n\
                 time.sleep(1000)\n";
    let crowd = bridge.order(&["python3", "-c", crowd], Stdio::Pipes { stdin: false }, Isolation::Shared);
    bridge.started(crowd).expect("starts");
    let mut up = [0; 2];
    File::from(bridge.fd(crowd, Descriptor::Stdout)).read_exact(&mut up).expect("it is up");
    let limits = Limits { memory: 1 << 30, pids: 40, cpu_millis: 1000 };
    let family = "import os, time\nfor n in range(20):\n  if os.fork() == 0: time.sleep(1000)\n";
    let pid = bridge.order_within(
        &["python3", "-c", family],
        Stdio::Pipes { stdin: false },
        Isolation::Private,
        limits,
    );
    bridge.started(pid).expect("starts");
    assert_eq!(bridge.exit(pid), ExitStatus::Code(0));
    for pid in [pid, crowd] {
        bridge.kill(pid);
        bridge.ended(pid);
    }
}

/// What a file of version 2 must hold, or the files of version 1.
const LIMITS: [(&str, &str); 7] = [
    ("memory.max", "67108864"),
    ("memory.oom.group", "1"),
    ("pids.max", "20"),
    ("cpu.max", "50000 100000"),
    ("memory.limit_in_bytes", "67108864"),
    ("cpu.cfs_quota_us", "50000"),
    ("cpu.cfs_period_us", "100000"),
];

pub(crate) fn limits_are_the_kernels_where_there_are_control_groups(bridge: &mut Bridge) {
    if !bridge.has(Layer::Cgroup) {
        return waive("all of it", "there are none");
    }
    let limits = Limits { memory: 64 << 20, pids: 20, cpu_millis: 500 };
    let marker = bridge.marker();
    let stdio = Stdio::Pipes { stdin: false };
    let pid = bridge.order_within(&["sleep", &marker], stdio, Isolation::Shared, limits);
    bridge.started(pid).expect("starts");
    bridge.supervisor(&marker);
    let program = marked(&marker)[0];
    let groups = dirs_of(&program.to_string());
    let mut found = Vec::new();
    for (file, value) in LIMITS {
        for text in groups.iter().filter_map(|dir| std::fs::read_to_string(dir.join(file)).ok()) {
            assert_eq!(text.trim(), value, "{file}");
            found.push(file);
        }
    }
    let of_version_2 = ["memory.max", "memory.oom.group", "pids.max", "cpu.max"];
    let of_version_1 = ["pids.max", "memory.limit_in_bytes", "cpu.cfs_quota_us", "cpu.cfs_period_us"];
    assert!(found == of_version_2 || found == of_version_1, "{found:?} in {groups:?}");
    bridge.kill(pid);
    assert_eq!(bridge.exit(pid), ExitStatus::Signal(libc::SIGKILL));
    bridge.ended(pid);
    let limits = groups.iter().filter(|dir| LIMITS.iter().any(|(file, _)| dir.join(file).exists()));
    for dir in limits {
        let left = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        assert_eq!(left, "", "nobody is left in {}", dir.display());
    }
}

pub(crate) fn a_share_below_the_kernels_smallest_is_enough_to_start(bridge: &mut Bridge) {
    // Less still would take many seconds.
    let limits = Limits { memory: 1 << 30, pids: 64, cpu_millis: 9 };
    let pid = bridge.order_within(&["cat"], Stdio::Pipes { stdin: true }, Isolation::Shared, limits);
    bridge.started(pid).expect("starts");
    bridge.kill(pid);
    assert_eq!(bridge.exit(pid), ExitStatus::Signal(libc::SIGKILL));
    bridge.ended(pid);
}

/// The kernel takes no such share of the processors, and says so when the sandbox is there already.
pub(crate) fn a_refused_order_leaves_no_private_sandbox_behind(bridge: &mut Bridge) {
    if !bridge.has(Layer::Cgroup) {
        return waive("all of it", "without control groups nothing refuses such an order");
    }
    let none = Limits { memory: 64 << 20, pids: 64, cpu_millis: 0 };
    let some = Limits { cpu_millis: 500, ..none };
    let mut order = |limits| {
        let stdio = Stdio::Pipes { stdin: false };
        let pid = bridge.order_within(&["sleep", "1000"], stdio, Isolation::Private, limits);
        bridge.started(pid).map(|_| pid)
    };
    let pid = order(some).expect("starts");
    let with_one = children_of_keeper();
    for _ in 0..5 {
        order(none).expect_err("refused");
    }
    let other = order(some).expect("starts");
    // Killed, and told to be refused before the kernel has buried it.
    let gone = || (children_of_keeper() == with_one + 1).then_some(());
    eventually(Duration::from_mins(1), "what the refused ones had is gone", gone);
    for pid in [pid, other] {
        bridge.kill(pid);
        bridge.ended(pid);
    }
}

fn children_of_keeper() -> usize {
    let keeper = rustix::process::getppid().expect("a parent");
    let children = std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"));
    children.expect("the keeper's children").split_whitespace().count()
}

/// Touches what it takes as fast as it can, up to 4 GiB.
const RUNAWAY: &str = "
import sys
block, kept = b'x' * (16 << 20), []
while len(kept) < 256: kept.append(bytearray(block))
sys.exit(7)
";

/// Bounds of what may be mapped, without touching it: 8 GiB is room, 18 GiB is too much.
const RESERVES: &str = "
import mmap, sys
private_and_not_reserved = 0x4022
kept = mmap.mmap(-1, 8 << 30, private_and_not_reserved)
try: mmap.mmap(-1, 10 << 30, private_and_not_reserved)
except OSError as error: sys.exit(error.errno)
";

/// Between two looks of a watchdog nothing stops it but what it may map at all.
pub(crate) fn a_runaway_allocator_is_ended_long_before_it_has_all_it_may_map(bridge: &mut Bridge) {
    let limits = Limits { memory: 256 << 20, pids: 64, cpu_millis: 1000 };
    let mut run = |script| {
        let stdio = Stdio::Pipes { stdin: false };
        let pid = bridge.order_within(&["python3", "-c", script], stdio, Isolation::Shared, limits);
        bridge.started(pid).expect("starts");
        let exit = bridge.exit_record(pid);
        bridge.ended(pid);
        exit
    };
    let exit = run(RUNAWAY);
    assert_eq!(
        (exit.status, exit.limit),
        (ExitStatus::Signal(libc::SIGKILL), Some(LimitHit::Memory)),
        "{exit:?}"
    );
    // And whatever a watchdog sees, no process maps more than its limit and 16 GiB for what is mapped and never touched.
    let exit = run(RESERVES);
    assert_eq!((exit.status, exit.limit), (ExitStatus::Code(libc::ENOMEM as u8), None), "{exit:?}");
}

/// Reads a file of the workspace, larger than the limit, by a mapping, again and again for a second of its own time: many looks of
/// a watchdog.
const READER: &str = "
import mmap, os, time
name = f'mapped-{os.getpid()}'
with open(name, 'w+b') as file:
    os.unlink(name)
    file.truncate(300 << 20)
    mapped = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
    while time.process_time() < 1:
        for at in range(0, len(mapped), 4096): mapped[at]
";

/// What the kernel can take back at any time is not what a limit is for.
pub(crate) fn pages_of_files_end_no_program(bridge: &mut Bridge) {
    let workspace = std::env::var("WORKSPACE").expect("workspace");
    if rustix::fs::statfs(&*workspace).expect("it is there").f_type == libc::TMPFS_MAGIC {
        return waive(
            "all of it",
            "the workspace is a file system in memory here, and its files are what a limit is for",
        );
    }
    let limits = Limits { memory: 128 << 20, pids: 64, cpu_millis: 1000 };
    let stdio = Stdio::Pipes { stdin: false };
    let pid = bridge.order_within(&["python3", "-c", READER], stdio, Isolation::Shared, limits);
    bridge.started(pid).expect("starts");
    let exit = bridge.exit_record(pid);
    assert_eq!((exit.status, exit.limit), (ExitStatus::Code(0), None), "{exit:?}");
    bridge.ended(pid);
}
