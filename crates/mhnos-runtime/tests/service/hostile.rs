//! A hostile program in every tier: files, devices, the kernel's files, sockets of others, exhaustion.

use std::{
    collections::BTreeMap,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            net::{SocketAddr, UnixListener},
            process::CommandExt,
        },
    },
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use mhnos_sandbox::Tier;
use mhnos_testing::{Scratch, Server, Wire, host::Host, host::USER, waive};
use rustix::{
    fs::XattrFlags,
    process::{Resource, geteuid, getrlimit},
    thread::{CapabilitySet, capabilities},
};
use serde_json::{Value, json};

use crate::{abuse::strict_hosts, options};

const PROGRAM: &str = include_str!("hostile.py");

/// What a program must find, whatever the tier.
const EVERYWHERE: &[(&str, &[&str])] = &[
    ("hard-link", &["EXDEV", "EACCES", "EPERM"]),
    ("rename-out", &["EXDEV", "EACCES", "EROFS", "EBUSY"]),
    ("init-root", &["EACCES", "EPERM", "ENOENT"]),
    ("init-environ", &["EACCES", "EPERM"]),
    ("set-uid", &["same"]),
    ("file-capability", &["none", "EPERM"]),
    ("int80", &["SIGSYS"]),
    ("less-likely-killed", &["EACCES", "EROFS"]),
    ("core-pattern", &["EACCES", "EROFS", "EPERM"]),
    ("sysrq", &["EACCES", "EROFS", "EPERM", "ENOENT"]),
    ("kernel-memory", &["EACCES", "EPERM", "ENOENT"]),
    ("disk", &["ENOENT", "EACCES", "EPERM"]),
    ("physical-memory", &["ENOENT", "EACCES", "EPERM"]),
    ("kernel-log", &["ENOENT", "EACCES", "EPERM"]),
    ("cgroup", &["ENOENT", "EACCES", "EROFS"]),
    ("release-agent", &["ENOENT", "EACCES", "EROFS"]),
    ("block-device", &["EACCES", "EPERM"]),
    ("immutable", &["EPERM", "ENOTTY", "ENOTSUP", "EOPNOTSUPP"]),
    ("freeze", &["EPERM"]),
    ("descriptors", &["EMFILE"]),
    ("huge-file", &["EFBIG"]),
    ("core-limit", &["0"]),
    ("abstract-socket", &["EPERM", "ECONNREFUSED", "EAFNOSUPPORT"]),
    ("path-socket", &["ENOENT", "EACCES", "EAFNOSUPPORT"]),
    ("message-queue", &["ENOENT", "ENOSYS"]),
    // The controls: what harms nobody works.
    ("hard-link-own", &["ok"]),
    ("set-uid-own", &["ok"]),
    ("fifo", &["ok"]),
    ("zombies", &["ok"]),
    ("own-walls", &["ok"]),
    ("end", &["ok"]),
];

/// Where the sandbox has a tree of its own.
const OWN_TREE: &[(&str, &[&str])] = &[
    ("fill-tmp", &["ENOSPC"]),
    ("fill-shm", &["ENOSPC"]),
    ("fill-root", &["EROFS", "EACCES"]),
    ("fill-inodes-tmp", &["ENOSPC"]),
    ("fill-names-tmp", &["ENOSPC"]),
    ("fill-inodes-dev-shm", &["ENOSPC"]),
    ("fill-inodes-run", &["ENOSPC"]),
    ("fill-names-run", &["ENOSPC"]),
    ("fill-inodes-var", &["ENOSPC"]),
    ("fill-names-var", &["ENOSPC"]),
    ("fill-inodes-dev", &["ENOSPC"]),
    ("fill-names-dev", &["ENOSPC"]),
    // Ignored, as PID 1's privilege, or refused: the spawn that follows shows it.
    ("kill-init", &["ok", "EPERM"]),
];

/// For queues with different numbers in one process, whose own number is below 2^22.
static NEXT_QUEUE: AtomicU32 = AtomicU32::new(1);

/// Sockets and a System V message queue of the host that a program must not reach.
struct Bystander {
    abstract_name: String,
    path: String,
    queue: u32,
    _listeners: [UnixListener; 2],
}

impl Bystander {
    fn listen() -> Self {
        let abstract_name = format!("mhnos-test-{}-{:?}", std::process::id(), std::thread::current().id())
            .replace(['(', ')'], "-");
        let path = format!("/var/tmp/{abstract_name}.sock");
        let _ = std::fs::remove_file(&path);
        let address = SocketAddr::from_abstract_name(&abstract_name).expect("a name");
        let by_name = UnixListener::bind_addr(&address).expect("listen");
        let by_path = UnixListener::bind(&path).expect("listen");
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(&path, everybody).expect("open to all");
        let queue = NEXT_QUEUE.fetch_add(1, Ordering::Relaxed) << 24 | std::process::id();
        system_v(&format!("libc.msgget({queue}, 0o1666)"));
        Self { abstract_name, path, queue, _listeners: [by_name, by_path] }
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        // IPC_RMID
        system_v(&format!("libc.msgctl(libc.msgget({}, 0), 0, None)", self.queue));
    }
}

/// Makes a call that Rust's libraries have no safe form of.
fn system_v(call: &str) {
    let script = format!("import ctypes; libc = ctypes.CDLL(None); assert {call} >= 0");
    let made = Command::new("python3").args(["-c", &script]).status().expect("python3");
    assert!(made.success() || std::thread::panicking(), "{call}");
}

/// A set-uid program of root's that tells who it is.
fn roots_own(path: &Path) {
    std::fs::copy("/usr/bin/id", path).expect("copy");
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o4755)).expect("set-uid");
}

/// A program with `CAP_SETUID` by its file, effective at once: it shows what it is asked for.
fn capable(path: &Path) {
    std::fs::copy("/usr/bin/cat", path).expect("copy");
    if !geteuid().is_root() {
        return waive("file capabilities", "only root gives them");
    }
    // capabilities(7), "File capability extended attribute versioning": 2, with the effective bit; permitted, inheritable.
    let words: [u32; 5] = [0x0200_0001, 1 << 7, 0, 0, 0];
    let value: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    rustix::fs::setxattr(path, "security.capability", &value, XattrFlags::empty()).expect("capabilities");
}

/// Files of this name in the directories of control groups, of version 2 and of each hierarchy of version 1.
fn of_groups(name: &str) -> Vec<String> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = [root.to_owned()].into_iter().chain(hierarchies).map(|directory| directory.join(name));
    files.filter(|path| path.is_file()).map(|path| path.to_string_lossy().into_owned()).collect()
}

/// Devices of this machine's disks, by their names in the kernel.
fn disk() -> Option<String> {
    let partitions = std::fs::read_to_string("/proc/partitions").unwrap_or_default();
    let names = partitions.lines().filter_map(|line| line.split_ascii_whitespace().nth(3));
    names.map(|name| format!("/dev/{name}")).find(|path| Path::new(path).exists())
}

/// What there is to attack on this machine, for the program.
fn targets(bystander: &Bystander) -> Value {
    let or = |found: Vec<String>, other: &str| if found.is_empty() { vec![other.to_owned()] } else { found };
    json!({
        "abstract": bystander.abstract_name,
        "path": bystander.path,
        "queue": bystander.queue,
        "victim": "/etc/hostname",
        "init": 1,
        "frozen": ".",
        "disk": disk().unwrap_or_else(|| "/dev/vda".to_owned()),
        "groups": or(of_groups("cgroup.procs"), "/sys/fs/cgroup/cgroup.procs"),
        // What the kernel runs, as root, when a group of version 1 is left by its last process.
        "agents": or(of_groups("release_agent"), "/sys/fs/cgroup/release_agent"),
        "own-tree": false,
    })
}

/// What the program found, by name.
fn told(stdout: &str) -> BTreeMap<String, String> {
    stdout.lines().filter_map(|line| line.split_once(' ')).map(|(a, b)| (a.into(), b.trim().into())).collect()
}

async fn run(server: &Server, mut targets: Value, own_tree: bool) -> BTreeMap<String, String> {
    server.write("hostile.py", PROGRAM);
    roots_own(&server.workspace().join("roots-id"));
    capable(&server.workspace().join("capable"));
    let mut wire = Wire::connect(server.address()).await;
    targets["own-tree"] = own_tree.into();
    let arguments = [targets.to_string()];
    let pid = wire.spawn(json!({"processType": "python", "command": "hostile.py", "args": arguments})).await;
    let (stdout, stderr, exit) = wire.run_to_exit(pid).await;
    assert!(stdout.contains("end ok"), "{exit}\n{stdout}\n{stderr}");
    // It still serves.
    let next = wire.spawn(json!({"processType": "shell", "command": "bash", "args": ["-c", "exit 3"]})).await;
    assert_eq!(wire.run_to_exit(next).await.2["code"], 3);
    told(&stdout)
}

#[tokio::test]
async fn a_hostile_program_finds_every_door_closed_in_every_tier() {
    let bystander = Bystander::listen();
    let mut wrong = Vec::new();
    for host in strict_hosts() {
        let own_tree = matches!(Host::named(host).tier, Tier::T1 | Tier::T2);
        let server = Server::start(options().on(host));
        let found = run(&server, targets(&bystander), own_tree).await;
        let expected = EVERYWHERE.iter().chain(if own_tree { OWN_TREE } else { &[] });
        for (name, answers) in expected {
            let answer = found.get(*name).map_or("nothing", String::as_str);
            if !answers.contains(&answer) {
                wrong.push(format!("{host}: {name}: {answer} instead of {answers:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The control: the sockets are there, and a program without walls reaches them.
#[tokio::test]
async fn without_walls_the_bystanders_sockets_are_reached() {
    let bystander = Bystander::listen();
    let server = Server::start(options().on("none").env("MHNOS_SANDBOX", "none"));
    let found = run(&server, targets(&bystander), false).await;
    assert_eq!((&*found["abstract-socket"], &*found["path-socket"]), ("ok", "ok"), "{found:?}");
    assert_eq!(found["message-queue"], "ok");
    assert_ne!(found["int80"], "SIGSYS");
}

/// Two names of one error.
const UNSUPPORTED: [&str; 2] = ["ENOTSUP", "EOPNOTSUPP"];

/// Runs these attempts outside, as this user, in this directory.
fn outside(user: u32, place: &Path, attempts: &[&str], mut targets: Value) -> BTreeMap<String, String> {
    targets["only"] = json!(attempts);
    let limits = "ulimit -n \"$(ulimit -Hn)\"; exec python3 -c \"$@\"";
    let mut program = Command::new("/bin/bash");
    program.args(["-c", limits, "bash", PROGRAM, &targets.to_string()]).current_dir(place);
    let output = program.uid(user).gid(user).output().expect("python3");
    assert!(output.status.success(), "{output:?}");
    told(&String::from_utf8_lossy(&output.stdout))
}

/// Attempts that root makes with success where nothing forbids it, if what they are about is there.
fn by_root() -> Vec<(&'static str, Option<&'static str>)> {
    let unless = |there: bool, why| if there { None } else { Some(why) };
    let file = |path: &str| unless(Path::new(path).exists(), "not in this kernel");
    let listed = |name: &str| unless(!of_groups(name).is_empty(), "no such file of control groups");
    let held = capabilities(None).expect("capabilities").effective;
    let descriptors = getrlimit(Resource::Nofile).maximum.is_none_or(|most| most > 10_100);
    vec![
        ("hard-link", None),
        ("rename-out", None),
        ("init-root", None),
        ("init-environ", None),
        (
            "less-likely-killed",
            unless(held.contains(CapabilitySet::SYS_RESOURCE), "this root lacks CAP_SYS_RESOURCE"),
        ),
        ("core-pattern", file("/proc/sys/kernel/core_pattern")),
        ("sysrq", file("/proc/sysrq-trigger")),
        ("kernel-memory", file("/proc/kcore")),
        ("physical-memory", file("/dev/mem")),
        ("kernel-log", file("/dev/kmsg")),
        ("cgroup", listed("cgroup.procs")),
        ("release-agent", listed("release_agent")),
        ("block-device", None),
        ("descriptors", unless(descriptors, "this root has few descriptors itself")),
        ("huge-file", None),
        ("fill-root", None),
    ]
}

/// The control of what the kernel keeps for root: by the same program, where nothing forbids it.
#[test]
fn outside_the_same_program_goes_through_each_door_as_root() {
    assert!(geteuid().is_root(), "only root gets past the kernel's own permission checks");
    let place = Scratch::new();
    let victim = place.path().join("victim");
    std::fs::write(&victim, "").expect("write");
    let work = place.path().join("work");
    std::fs::create_dir(&work).expect("a directory");
    let mut targets = targets(&Bystander::listen());
    targets["victim"] = json!(victim);
    targets["own-tree"] = true.into();
    // Some machines keep their first process from root, too: of any other of root's this shows the same.
    targets["init"] = std::process::id().into();
    // Where there is nothing to be frozen: who may is told so, whoever may not is refused before.
    targets["frozen"] = "/proc".into();
    let (waived, made): (Vec<_>, Vec<_>) = by_root().into_iter().partition(|(_, why)| why.is_some());
    for (name, why) in waived {
        waive(name, why.unwrap_or_default());
    }
    let made: Vec<&str> = made.into_iter().map(|(name, _)| name).collect();
    let found =
        outside(0, &work, &[&made[..], &["freeze", "immutable", "core-limit", "disk"]].concat(), targets);
    for name in &made {
        assert_eq!(found.get(*name).map(String::as_str), Some("ok"), "{name}: {found:?}");
    }
    assert!(UNSUPPORTED.contains(&&*found["freeze"]), "{found:?}");
    match (found["disk"].as_str(), disk()) {
        (_, None) => waive("disk", "no disk here"),
        // A misspelt one would not be there.
        ("EPERM", _) => waive("disk", "this machine keeps it from root, too"),
        (other, _) => assert_eq!(other, "ok"),
    }
    match found["immutable"].as_str() {
        "ENOTTY" | "ENOTSUP" | "EOPNOTSUPP" => waive("immutable", "not on this file system"),
        other => assert_eq!(other, "ok"),
    }
    match getrlimit(Resource::Core).maximum {
        Some(0) => waive("core-limit", "it is nothing for this root, too"),
        _ => assert_ne!(found["core-limit"], "0"),
    }
}

/// No new privileges are for nobody, walls or not. Outside, such programs change who starts them.
#[test]
fn outside_programs_of_roots_lend_their_rights() {
    assert!(geteuid().is_root(), "only root makes them");
    let place = Scratch::new();
    let program = place.path().join("roots-id");
    roots_own(&program);
    let flags = rustix::fs::statvfs(&program).expect("its file system").f_flag;
    if flags.contains(rustix::fs::StatVfsMountFlags::NOSUID) {
        return waive(&program.to_string_lossy(), "on a file system without set-uid programs");
    }
    capable(&place.path().join("capable"));
    let found = outside(USER, place.path(), &["set-uid", "file-capability"], targets(&Bystander::listen()));
    // CAP_SETUID
    assert_eq!((&*found["set-uid"], &*found["file-capability"]), ("0", "0000000000000080"));
}
