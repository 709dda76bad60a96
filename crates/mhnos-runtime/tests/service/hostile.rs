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
use rustix::{fs::XattrFlags, process::geteuid};
use serde_json::json;

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
    ("immutable", &["EPERM", "ENOTTY", "EOPNOTSUPP"]),
    ("freeze", &["EPERM", "ENOTTY", "EOPNOTSUPP"]),
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
    ("fill-inodes", &["ENOSPC"]),
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

/// The files of control groups of version 1 that say what the kernel runs, as root, when one is left.
fn release_agents() -> Vec<String> {
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let agents = hierarchies.map(|hierarchy| hierarchy.path().join("release_agent"));
    agents.filter(|path| path.exists()).map(|path| path.to_string_lossy().into_owned()).collect()
}

async fn run(server: &Server, bystander: &Bystander, tree: &str) -> BTreeMap<String, String> {
    server.write("hostile.py", PROGRAM);
    roots_own(&server.workspace().join("roots-id"));
    capable(&server.workspace().join("capable"));
    let mut wire = Wire::connect(server.address()).await;
    let queue = bystander.queue.to_string();
    let mut agents = release_agents().join(":");
    if agents.is_empty() {
        "/sys/fs/cgroup/release_agent".clone_into(&mut agents);
    }
    let arguments = [&bystander.abstract_name, &bystander.path, tree, &queue, &agents];
    let pid = wire.spawn(json!({"processType": "python", "command": "hostile.py", "args": arguments})).await;
    let (stdout, stderr, exit) = wire.run_to_exit(pid).await;
    assert!(stdout.contains("end ok"), "{exit}\n{stdout}\n{stderr}");
    // It still serves.
    let next = wire.spawn(json!({"processType": "shell", "command": "bash", "args": ["-c", "exit 3"]})).await;
    assert_eq!(wire.run_to_exit(next).await.2["code"], 3);
    stdout.lines().filter_map(|line| line.split_once(' ')).map(|(a, b)| (a.into(), b.trim().into())).collect()
}

#[tokio::test]
async fn a_hostile_program_finds_every_door_closed_in_every_tier() {
    let bystander = Bystander::listen();
    let mut wrong = Vec::new();
    for host in strict_hosts() {
        let own_tree = matches!(Host::named(host).tier, Tier::T1 | Tier::T2);
        let server = Server::start(options().on(host));
        let found = run(&server, &bystander, if own_tree { "own-tree" } else { "hosts-tree" }).await;
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
    let found = run(&server, &bystander, "hosts-tree").await;
    assert_eq!((&*found["abstract-socket"], &*found["path-socket"]), ("ok", "ok"), "{found:?}");
    assert_eq!(found["message-queue"], "ok");
    assert_ne!(found["int80"], "SIGSYS");
    // What a release agent is root may change: if there are any.
    if release_agents().is_empty() {
        waive("release agents", "no control groups of version 1");
    }
    for agent in release_agents() {
        std::fs::OpenOptions::new().write(true).open(&agent).expect(&agent);
    }
    // No new privileges are for nobody, walls or not. Outside, such a program changes who starts it.
    let place = Scratch::new();
    let program = place.path().join("id");
    roots_own(&program);
    let flags = rustix::fs::statvfs(&program).expect("its file system").f_flag;
    if flags.contains(rustix::fs::StatVfsMountFlags::NOSUID) {
        return waive(&program.to_string_lossy(), "on a file system without set-uid programs");
    }
    let told = Command::new(&program).arg("-u").uid(USER).gid(USER).output().expect("run");
    assert_eq!(String::from_utf8_lossy(&told.stdout).trim(), "0");
    let program = place.path().join("capable");
    capable(&program);
    let told = Command::new(&program).arg("/proc/self/status").uid(USER).gid(USER).output().expect("run");
    let told = String::from_utf8_lossy(&told.stdout);
    assert!(told.contains("CapEff:\t0000000000000080"), "{told}");
}
