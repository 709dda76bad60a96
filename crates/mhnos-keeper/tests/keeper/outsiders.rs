//! Who of the keeper's descendants is a program, and is not behind the walls that the keeper says there are.
//!
//! What the keeper forked and has executed nothing since is the service's own: init, supervisors, programs to come. Whatever
//! has, and all that descends from it, must carry the mark of each layer in force that can be seen from outside, on every kind of host.

use std::fs;

use mhnos_sandbox::Layer;

use crate::{
    bridge::Bridge,
    proc::{children, stat},
};

/// What a look has found.
#[derive(Debug, Default)]
struct Found {
    /// Programs that were looked at.
    programs: usize,
    /// What is wrong with the first that is not where it should be.
    outside: Option<String>,
}

/// Returns how many programs there are.
pub(crate) fn nobody_is_outside(bridge: &Bridge) -> usize {
    let found = among_the_keepers(bridge);
    assert!(found.outside.is_none(), "outside a sandbox: {}", found.outside.unwrap_or_default());
    found.programs
}

/// The control: what this bridge starts is in no sandbox.
pub(crate) fn an_outsider_would_be_found(bridge: &Bridge) {
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("it is there");
    let found = among(bridge, vec![child.id() as i32]);
    child.kill().expect("it is ours");
    child.wait().expect("it is ours");
    assert_eq!(found.programs, 1);
    assert!(found.outside.is_some(), "{found:?}");
}

/// Looks at all descendants of the keeper but this bridge.
fn among_the_keepers(bridge: &Bridge) -> Found {
    let mut family = children(keeper());
    let own = std::process::id() as i32;
    family.retain(|pid| *pid != own);
    among(bridge, family)
}

/// Looks at these and their descendants.
fn among(bridge: &Bridge, family: Vec<i32>) -> Found {
    let walls = Walls::of(bridge);
    let mut found = Found::default();
    let mut family: Vec<_> = family.into_iter().map(|pid| (pid, false)).collect();
    let mut next = 0;
    while let Some((pid, of_program)) = family.get(next).copied() {
        next += 1;
        // In this order: what becomes a program meanwhile has its walls already.
        let is_program = of_program || has_executed(pid);
        family.extend(children(pid).into_iter().map(|child| (child, is_program)));
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        // Without memory of its own it has ended, or is about to.
        if first(&status, "VmSize").is_none() {
            continue;
        }
        found.programs += usize::from(is_program);
        if let Some(missing) = walls.missing(&status, is_program) {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
            found.outside.get_or_insert(format!("{arguments}: without {missing:?}\n{status}"));
        }
    }
    found
}

/// What is in force, as far as it can be seen of a process.
struct Walls {
    layers: Vec<Layer>,
    /// The system call filters around the keeper, which make the host what it is.
    filters_of_host: u32,
    keepers_user: String,
}

impl Walls {
    fn of(bridge: &Bridge) -> Self {
        let seen = [
            Layer::PidNamespace,
            Layer::SeparateUid,
            Layer::Seccomp,
            Layer::NoNewPrivileges,
            Layer::NoCapabilities,
        ];
        let status = fs::read_to_string(format!("/proc/{}/status", keeper())).expect("the keeper lives");
        Self {
            layers: seen.into_iter().filter(|layer| bridge.has(*layer)).collect(),
            filters_of_host: filters(&status),
            keepers_user: first(&status, "Uid").expect("proc_pid_status(5)").to_owned(),
        }
    }

    /// The first layer that a process lacks. The service's own are in the sandbox too where that has a process table.
    fn missing(&self, status: &str, is_program: bool) -> Option<Layer> {
        let none = |field| first(status, field).is_some_and(|set| set.bytes().all(|digit| digit == b'0'));
        let has = |layer: &Layer| match layer {
            Layer::PidNamespace => words(status, "NSpid").count() > 1,
            _ if !is_program => true,
            Layer::SeparateUid => words(status, "Uid").all(|uid| uid != self.keepers_user),
            Layer::Seccomp => first(status, "Seccomp") == Some("2") && filters(status) > self.filters_of_host,
            Layer::NoNewPrivileges => first(status, "NoNewPrivs") == Some("1"),
            Layer::NoCapabilities => none("CapEff") && none("CapPrm") && none("CapInh") && none("CapAmb"),
            _ => true,
        };
        self.layers.iter().find(|layer| !has(layer)).copied()
    }
}

fn keeper() -> i32 {
    rustix::process::getppid().expect("keeper").as_raw_nonzero().get()
}

/// Whether it has become a program since it was forked: the kernel clears `PF_FORKNOEXEC`, 0x40, of its flags (proc_pid_stat(5)).
fn has_executed(pid: i32) -> bool {
    let flags = stat(pid, 9).and_then(|flags| flags.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & 0x40 == 0)
}

/// The words of a field of proc_pid_status(5).
fn words<'a>(status: &'a str, field: &str) -> impl Iterator<Item = &'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().split_whitespace()
}

fn first<'a>(status: &'a str, field: &str) -> Option<&'a str> {
    words(status, field).next()
}

/// Since Linux 5.9.
fn filters(status: &str) -> u32 {
    first(status, "Seccomp_filters").and_then(|number| number.parse().ok()).expect("proc_pid_status(5)")
}
