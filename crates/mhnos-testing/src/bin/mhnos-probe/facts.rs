//! What a process can read about itself and its surroundings.

use std::fs;
use std::io::IsTerminal;
use std::path::Path;

use rustix::process::{Pid, Resource, getrlimit};
use serde_json::{Map, Value, json};

/// All facts, by name.
pub(crate) fn all() -> Vec<(&'static str, Value)> {
    vec![
        ("identity", identity()),
        ("session", session()),
        ("status", status()),
        ("tty", tty()),
        ("cwd", json!(std::env::current_dir().ok())),
        ("env", std::env::vars().map(|(name, value)| (name, json!(value))).collect::<Map<_, _>>().into()),
        ("fds", descriptors()),
        ("rlimits", limits()),
        ("processes", processes()),
        ("mounts", mounts()),
        ("root", names("/")),
        ("interfaces", interfaces()),
        ("namespaces", namespaces()),
        ("cgroup", json!(fs::read_to_string("/proc/self/cgroup").ok())),
        ("hostname", json!(rustix::system::uname().nodename().to_string_lossy())),
    ]
}

fn identity() -> Value {
    json!({
        "uid": rustix::process::getuid().as_raw(),
        "euid": rustix::process::geteuid().as_raw(),
        "gid": rustix::process::getgid().as_raw(),
        "groups": rustix::process::getgroups().map(|all| all.iter().map(|gid| gid.as_raw()).collect::<Vec<_>>()).ok(),
        "uid_map": fs::read_to_string("/proc/self/uid_map").ok(),
    })
}

fn session() -> Value {
    json!({
        "pid": rustix::process::getpid().as_raw_nonzero(),
        "ppid": rustix::process::getppid().map(Pid::as_raw_nonzero),
        "pgid": rustix::process::getpgrp().as_raw_nonzero(),
        "sid": rustix::process::getsid(None).map(Pid::as_raw_nonzero).ok(),
    })
}

/// The lines of proc(5) `status` that tell of confinement: CapEff, CapBnd, NoNewPrivs, Seccomp, SigIgn, SigBlk…
fn status() -> Value {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted = ["Cap", "NoNewPrivs", "Seccomp", "Sig", "Shd", "Umask", "Threads", "NSpid"];
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let lines = lines.filter(|(name, _)| wanted.iter().any(|prefix| name.starts_with(prefix)));
    lines.map(|(name, value)| (name.to_owned(), json!(value.trim()))).collect::<Map<_, _>>().into()
}

fn tty() -> Value {
    json!({
        "stdin": std::io::stdin().is_terminal(),
        "stdout": std::io::stdout().is_terminal(),
        "stderr": std::io::stderr().is_terminal(),
        "name": fs::read_link("/proc/self/fd/0").ok(),
        "controlling": fs::File::open("/dev/tty").is_ok(),
    })
}

/// Open descriptors and what they lead to; the one that lists the directory is left out.
fn descriptors() -> Value {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Value::Null };
    let all: Vec<_> =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    let targets = all.into_iter().filter_map(|number| {
        let target = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
        Some((number, json!(target)))
    });
    targets.collect::<Map<_, _>>().into()
}

fn limits() -> Value {
    let limit = |resource| {
        let limit = getrlimit(resource);
        json!({"soft": limit.current, "hard": limit.maximum})
    };
    json!({
        "nofile": limit(Resource::Nofile),
        "nproc": limit(Resource::Nproc),
        "core": limit(Resource::Core),
        "fsize": limit(Resource::Fsize),
        "data": limit(Resource::Data),
        "as": limit(Resource::As),
        "memlock": limit(Resource::Memlock),
    })
}

/// Every process that can be seen, with its command line.
fn processes() -> Value {
    let Ok(entries) = fs::read_dir("/proc") else { return Value::Null };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let seen = numbers.map(|pid| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        (pid.to_string(), json!(String::from_utf8_lossy(&command).replace('\0', " ").trim_end()))
    });
    seen.collect::<Map<_, _>>().into()
}

/// Mount points with type, source and options.
fn mounts() -> Value {
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounts = text.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (source, target, kind, options) =
            (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        Some(json!({"source": source, "target": target, "type": kind, "options": options}))
    });
    mounts.collect()
}

fn names(directory: impl AsRef<Path>) -> Value {
    let Ok(entries) = fs::read_dir(directory) else { return Value::Null };
    let mut names: Vec<_> =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    names.sort();
    json!(names)
}

fn interfaces() -> Value {
    let text = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    text.lines().skip(2).filter_map(|line| Some(json!(line.split_once(':')?.0.trim()))).collect()
}

fn namespaces() -> Value {
    let kinds = ["user", "mnt", "pid", "ipc", "uts", "net", "cgroup"];
    let links =
        kinds.map(|kind| (kind.to_owned(), json!(fs::read_link(format!("/proc/self/ns/{kind}")).ok())));
    Map::from_iter(links).into()
}
