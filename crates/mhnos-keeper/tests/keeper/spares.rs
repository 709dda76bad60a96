//! Supervisors that wait for an order are a shortcut: what happens to them must not be felt.

use mhnos_keeper::channel::ExitStatus;
use mhnos_sandbox::{Tier, sys};
use rustix::process::Pid;

use crate::bridge::Bridge;

/// Waiting supervisors, or the processes that would be their programs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Supervisors,
    Recruits,
}

pub(crate) fn killed_spares_are_passed_over(bridge: &mut Bridge) {
    if bridge.tier() == Tier::T3Plus {
        // They belong to the programs' user there, whom this bridge cannot signal.
        return;
    }
    let marker = bridge.marker();
    let running = bridge.start(&format!("exec sleep {marker}"));
    let own = bridge.supervisor(&marker);
    let init = parent(own.as_raw_nonzero().get()).expect("an init");
    for which in [Which::Supervisors, Which::Recruits] {
        let spares = loop {
            let spares = waiting(init, own.as_raw_nonzero().get(), which);
            if !spares.is_empty() {
                break spares;
            }
        };
        for spare in &spares {
            sys::kill(Pid::from_raw(*spare).expect("a pid"), libc::SIGKILL).expect("kill a spare");
        }
        while spares.iter().any(|spare| parent(*spare).is_some()) {}
        // More than wait at any time.
        for _ in 0..6 {
            let (output, status) = bridge.run("echo x");
            assert!(output == "x\n" && status == ExitStatus::Code(0), "{output:?} {status:?}");
        }
    }
    bridge.kill(running);
    assert_eq!(bridge.exit(running), ExitStatus::Signal(libc::SIGKILL));
}

fn waiting(init: i32, own: i32, which: Which) -> Vec<i32> {
    let supervisors: Vec<i32> = children(init).into_iter().filter(|pid| *pid != own).collect();
    match which {
        Which::Supervisors => supervisors,
        Which::Recruits => supervisors.into_iter().flat_map(children).collect(),
    }
}

/// Those of its children that are ours.
fn children(pid: i32) -> Vec<i32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let ours = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "mhnos-supervise\n")
    };
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(ours).collect()
}

fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
