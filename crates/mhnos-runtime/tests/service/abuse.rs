//! System calls a program must not be able to make, in every tier, with the same calls outside as the control:
//! there the kernel's own code answers, about the arguments.

#![allow(clippy::disallowed_methods, reason = "the control runs a program outside")]

use mhnos_testing::{Probe, Server, Wire, host::Host, waive, waived::kept};
use serde_json::json;

use crate::options;

/// Hosts on which the service is as strict as it can be, at least one for each tier.
const STRICT_HOSTS: [&str; 7] =
    ["root", "user", "masked-proc", "container", "container-linux-6.1", "container-linux-5.15", "one-user"];

/// Those that are not waived by name (`MHNOS_TEST_WAIVED=root,user`), as in a container, where namespaces are not to be had.
pub(crate) fn strict_hosts() -> impl Iterator<Item = &'static str> {
    kept(&STRICT_HOSTS).into_iter()
}

const CALLS: &str = include_str!("raw_calls.py");

/// A call and the error a confined program gets. Arguments are such that nothing happens if it is made.
struct Call {
    name: &'static str,
    number: i64,
    arguments: &'static str,
    denied: &'static str,
}

macro_rules! calls {
    ($($number:ident($arguments:literal) $denied:ident;)*) => {
        &[$(Call {
            name: stringify!($number), number: libc::$number, arguments: $arguments, denied: stringify!($denied),
        }),*]
    };
}

/// Null and -1 pointers and descriptors: the kernel answers EFAULT, EBADF or EINVAL where it is reached.
const DENIED: &[Call] = calls! {
    // Other roots and mounts.
    SYS_mount("1,1,1,0,0") EPERM;
    SYS_umount2("1,0") EPERM;
    SYS_pivot_root("1,1") EPERM;
    SYS_chroot("1") EPERM;
    SYS_open_tree("-1,1,0") ENOSYS;
    SYS_fsopen("1,0") ENOSYS;
    SYS_mount_setattr("-1,1,0,0,0") ENOSYS;
    SYS_move_mount("-1,1,-1,1,0") ENOSYS;
    // Namespaces.
    SYS_clone3("0,0") ENOSYS;
    SYS_setns("-1,0") EPERM;
    // Other processes.
    SYS_ptrace("16,999999999") EPERM;
    SYS_process_vm_readv("999999999,0,0,0,0,0") EPERM;
    SYS_pidfd_getfd("-1,0,0") EPERM;
    SYS_kcmp("999999999,999999999,0,0,0") EPERM;
    // The kernel's own stores and machines.
    SYS_keyctl("65535") EPERM;
    SYS_add_key("1,1,0,0,0") EPERM;
    SYS_request_key("1,1,0,0") EPERM;
    SYS_bpf("0,1,0") EPERM;
    SYS_perf_event_open("1,0,0,-1,0") EPERM;
    SYS_userfaultfd("-1") EPERM;
    SYS_io_uring_setup("0,1") ENOSYS;
    SYS_open_by_handle_at("-1,1,0") EPERM;
    SYS_quotactl("0,1,0,0") EPERM;
    SYS_swapon("1,0") EPERM;
    SYS_fanotify_init("-1,0") EPERM;
    // The machine.
    SYS_settimeofday("1,0") EPERM;
    SYS_sethostname("1,-1") EPERM;
    SYS_syslog("99,0,0") EPERM;
    SYS_reboot("0,0,0,0") EPERM;
    // TIOCSTI on no descriptor at all; the other requests of terminals are further down.
    SYS_ioctl("-1,0x5412,0") EPERM;
    // Another process's turn, by its number.
    SYS_prlimit64("999999999,7,0,0") EPERM;
    SYS_setpriority("0,999999999,19") EPERM;
    SYS_ioprio_set("1,999999999,0") EPERM;
    SYS_sched_setaffinity("999999999,0,0") EPERM;
    SYS_sched_setscheduler("999999999,0,0") EPERM;
    SYS_sched_setparam("999999999,0") EPERM;
    SYS_sched_setattr("999999999,0,0") EPERM;
};

fn specification(call: &Call) -> String {
    format!("{},{},{}", call.name, call.number, call.arguments)
}

/// Runs the calls as a program of the service on this kind of host.
async fn inside(host: &str, mode: &str, arguments: Vec<String>) -> Probe {
    let server = Server::start(options().env("MHNOS_SANDBOX", mode).on(host));
    server.write("raw_calls.py", CALLS);
    let mut wire = Wire::connect(server.address()).await;
    let pid =
        wire.spawn(json!({"processType": "python", "command": "raw_calls.py", "args": arguments})).await;
    let (stdout, stderr, exit) = wire.run_to_exit(pid).await;
    assert_eq!(exit["code"], 0, "{host}\n{stdout}\n{stderr}");
    Probe::parse(&stdout)
}

fn outside(arguments: Vec<String>) -> Probe {
    let output = std::process::Command::new("python3").arg("-c").arg(CALLS).args(arguments).output();
    let output = output.expect("python3");
    assert!(output.status.success(), "{output:?}");
    Probe::parse(&String::from_utf8_lossy(&output.stdout))
}

#[tokio::test]
async fn calls_that_are_not_for_programs_are_refused_in_every_tier() {
    let arguments: Vec<String> = DENIED.iter().map(specification).collect();
    for host in strict_hosts() {
        let report = inside(host, "strict", arguments.clone()).await;
        for call in DENIED {
            report.assert_denied(call.name, &[call.denied]);
        }
    }
}

/// The control: without the filter every one of these reaches the kernel's own code.
#[test]
fn the_same_calls_outside_are_answered_by_the_kernel() {
    assert!(rustix::process::geteuid().is_root(), "only root gets past the kernel's own permission checks");
    let report = outside(DENIED.iter().map(specification).collect());
    let refused = |call: &&Call| {
        let errno = report.attempt(call.name).errno.as_deref().unwrap_or_default();
        ["EPERM", "ENOSYS"].contains(&errno)
    };
    let refused: Vec<_> = DENIED.iter().filter(refused).map(|call| call.name).collect();
    assert!(refused.is_empty(), "refused outside, too: {refused:?}");
}

/// Calls that came to Linux since 6.6, new forms of older ones: with arguments that are in nobody's way.
const NEWER: [&str; 9] = [
    "map_shadow_stack,453,1,0,-1",
    "futex_wake,454,1,1,0,-1",
    "futex_wait,455,1,0,0,-1,0,0",
    "futex_requeue,456,0,-1,0,0",
    "mseal,462,1,0,-1",
    "setxattrat,463,-1,1,0,1,1,0",
    "getxattrat,464,-1,1,0,1,1,0",
    "listxattrat,465,-1,1,0,1,1",
    "removexattrat,466,-1,1,0,1",
];

/// Also the control that numbers are those of the calls meant: cachestat, one of the same age, is not for programs.
#[tokio::test]
async fn newer_calls_for_everybody_are_answered_as_outside() {
    let arguments: Vec<String> = NEWER.iter().map(ToString::to_string).collect();
    let cachestat = "cachestat,451,-1,0,0,-1".to_owned();
    let expected = outside(arguments.iter().cloned().chain([cachestat.clone()]).collect());
    let errno = |report: &Probe, name: &str| report.attempt(name).errno.clone();
    assert_ne!(errno(&expected, "cachestat"), None, "its arguments are wrong");
    for host in strict_hosts().filter(|host| Host::named(host).landlock.is_none()) {
        let report =
            inside(host, "strict", arguments.iter().cloned().chain([cachestat.clone()]).collect()).await;
        for name in NEWER.map(|call| call.split(',').next().unwrap_or_default()) {
            assert_eq!(errno(&report, name), errno(&expected, name), "{host}: {name}");
        }
        report.assert_denied("cachestat", &["ENOSYS"]);
    }
}

/// A socket of a family, type and protocol that is not for programs.
const SOCKETS: [(&str, &str); 8] = [
    ("vsock", "40,1,0"),
    ("alg", "38,5,0"),
    ("packet", "17,3,0"),
    ("key", "15,3,2"),
    ("netfilter", "16,3,12"),
    ("raw", "2,3,1"),
    ("mptcp", "2,1,262"),
    ("sctp", "2,1,132"),
];

/// Other calls whose arguments decide, and the errors a confined program gets.
fn restricted() -> [(&'static str, String, &'static [&'static str]); 7] {
    let terminal = |request: &str| format!("{},-1,{request},0", libc::SYS_ioctl);
    [
        ("aslr-off", format!("{},0x40000", libc::SYS_personality), &["EPERM"]),
        ("namespace", format!("{},0x10000000", libc::SYS_unshare), &["EPERM"]),
        ("clone-namespace", format!("{},0x10000000,0,0,0,0", libc::SYS_clone), &["EPERM"]),
        ("fast-open", format!("{},-1,0,0,0x20000000,0,0", libc::SYS_sendto), &["EOPNOTSUPP", "ENOTSUP"]),
        ("console-request", terminal("0x541C"), &["EPERM"]),
        ("line-discipline", terminal("0x5423"), &["EPERM"]),
        ("x32", format!("{}", 0x4000_0000_u32 + 39), &["ENOSYS"]),
    ]
}

fn socket((name, arguments): (&str, &str)) -> String {
    format!("{name},{},{arguments}", libc::SYS_socket)
}

#[tokio::test]
async fn dangerous_sockets_and_personalities_are_refused_in_every_tier() {
    let allowed = [("tcp", "2,1,0"), ("route", "16,3,0")];
    let mut arguments: Vec<String> = SOCKETS.into_iter().chain(allowed).map(socket).collect();
    arguments.push(format!("ask,{},0xffffffff", libc::SYS_personality));
    arguments.extend(restricted().map(|(name, call, _)| format!("{name},{call}")));
    for host in strict_hosts() {
        let report = inside(host, "strict", arguments.clone()).await;
        for (family, _) in SOCKETS {
            report.assert_denied(family, &["EAFNOSUPPORT"]);
        }
        for (name, _, denied) in restricted() {
            report.assert_denied(name, denied);
        }
        for allowed in ["tcp", "route", "ask"] {
            report.assert_ok(allowed);
        }
        assert_ne!(Host::named(host).tier, mhnos_sandbox::Tier::None);
    }
}

/// The control. What this kernel was built without cannot be one: that is said.
#[test]
fn the_same_sockets_and_personalities_outside_are_answered_by_the_kernel() {
    assert!(rustix::process::geteuid().is_root(), "only root gets past the kernel's own permission checks");
    let report = outside(SOCKETS.into_iter().map(socket).collect());
    let missing = |name: &&str| {
        let errno = report.attempt(name).errno.as_deref().unwrap_or_default();
        ["EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT"].contains(&errno)
    };
    let not_built: Vec<_> = SOCKETS.map(|(name, _)| name).into_iter().filter(missing).collect();
    for family in &not_built {
        waive(family, "not in this kernel");
    }
    for built_everywhere in ["packet", "raw"] {
        report.assert_ok(built_everywhere);
    }
    // A process that a call makes ends at once; numbers of x32 most kernels refuse as the filter does.
    let calls = restricted().into_iter().filter(|(name, ..)| !["x32", "clone-namespace"].contains(name));
    let report = outside(calls.clone().map(|(name, call, _)| format!("{name},{call}")).collect());
    for (name, _, denied) in calls {
        let errno = report.attempt(name).errno.as_deref().unwrap_or_default();
        assert!(!denied.contains(&errno), "{name}: {errno}");
    }
}

#[tokio::test]
async fn only_relaxed_lets_a_program_be_traced() {
    // PTRACE_TRACEME: by one's own parent.
    let trace = vec![format!("trace,{},0", libc::SYS_ptrace)];
    for host in strict_hosts() {
        inside(host, "strict", trace.clone()).await.assert_denied("trace", &["EPERM"]);
        inside(host, "relaxed", trace.clone()).await.assert_ok("trace");
    }
}
