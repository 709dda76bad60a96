//! Supervisors that wait for an order are a shortcut: what happens to them must not be felt.

use std::time::Instant;

use mhnos_keeper::channel::{
    ExitStatus, FromKeeper, Isolation, LimitHit, Pid as OurPid, Scope, ToKeeper, Usage,
};
use mhnos_sandbox::{Limits, Stdio, Tier, sys};
use rustix::{param::clock_ticks_per_second, process::Pid};

use crate::{
    bridge::Bridge,
    proc::{children, is_supervise, parent, stat},
};

/// Waiting supervisors, or the processes that would be their programs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Supervisors,
    Recruits,
}

pub(crate) fn killed_spares_are_passed_over(bridge: &mut Bridge) {
    let Some((running, own, init)) = beside_those_that_wait(bridge) else { return };
    for which in [Which::Supervisors, Which::Recruits] {
        let spares = loop {
            let spares = waiting(init, own, which);
            if !spares.is_empty() {
                break spares;
            }
        };
        for spare in &spares {
            sys::kill(Pid::from_raw(*spare).expect("a pid"), libc::SIGKILL).expect("kill a spare");
        }
        while spares.iter().any(|spare| parent(*spare).is_some()) {}
        six_start(bridge);
    }
    bridge.kill(running);
    assert_eq!(bridge.exit(running), ExitStatus::Signal(libc::SIGKILL));
}

/// Who may signal what waits ahead may stop it, and the next programs start all the same.
pub(crate) fn stopped_spares_start_all_the_same(bridge: &mut Bridge) {
    let Some((running, own, init)) = beside_those_that_wait(bridge) else { return };
    for _ in 0..10 {
        while waiting(init, own, Which::Recruits).is_empty() {}
        for recruit in waiting(init, own, Which::Recruits) {
            // It may have been let go since.
            let _ = sys::kill(Pid::from_raw(recruit).expect("a pid"), libc::SIGSTOP);
        }
        six_start(bridge);
    }
    bridge.kill(running);
    bridge.ended(running);
}

/// What is told to stop before it runs is started; it stops if it ran by then, and that is told of it, as of any other.
pub(crate) fn a_start_comes_to_an_end_although_it_is_told_to_stop(bridge: &mut Bridge) {
    for _ in 0..20 {
        let order = |_| bridge.order(&["true"], Stdio::Pipes { stdin: false }, Isolation::Shared);
        let ordered: Vec<_> = (0..8).map(order).collect();
        let stop = |pid: &OurPid| ToKeeper::Signal { pid: *pid, signal: libc::SIGSTOP, scope: Scope::Leader };
        for pid in &ordered {
            bridge.send(&stop(pid));
        }
        for pid in ordered {
            bridge.started(pid).expect("starts");
            bridge.send(&ToKeeper::Signal { pid, signal: libc::SIGCONT, scope: Scope::Leader });
            assert_eq!(bridge.exit(pid), ExitStatus::Code(0));
            bridge.ended(pid);
        }
    }
    // One that runs stays stopped: it says nothing until it is told to go on.
    let marker = bridge.marker();
    let script = ["sh", "-c", "kill -STOP $$; echo x", "sh", &marker];
    let pid = bridge.order(&script, Stdio::Pipes { stdin: false }, Isolation::Shared);
    bridge.started(pid).expect("starts");
    let stopped = |pid| stat(pid, 3).is_some_and(|state| state == "T");
    let shell = bridge.marked(&marker)[0];
    while !stopped(shell) {}
    let (output, status) = bridge.run("echo y");
    assert!(output == "y\n" && status == ExitStatus::Code(0), "{output:?} {status:?}");
    assert!(stopped(shell), "a program that was stopped went on");
    bridge.send(&ToKeeper::Signal { pid, signal: libc::SIGCONT, scope: Scope::Leader });
    assert_eq!((bridge.output(pid).as_str(), bridge.exit(pid)), ("x\n", ExitStatus::Code(0)));
    bridge.ended(pid);
}

/// The word of a child's end may come when that one has been reaped and the next is there, or from anybody.
pub(crate) fn a_word_of_a_child_that_has_not_ended_keeps_no_program_waiting(bridge: &mut Bridge) {
    let Some((running, own, init)) = beside_those_that_wait(bridge) else { return };
    while waiting(init, own, Which::Recruits).is_empty() {}
    for supervisor in waiting(init, own, Which::Supervisors) {
        // A resting one may have been let go since.
        let _ = sys::kill(Pid::from_raw(supervisor).expect("a pid"), libc::SIGCHLD);
    }
    six_start(bridge);
    bridge.kill(running);
    bridge.ended(running);
}

/// It starts or is refused, whatever is killed on its way, and the next one starts.
pub(crate) fn a_start_comes_to_an_end_although_those_that_wait_are_killed(bridge: &mut Bridge) {
    let Some((running, own, init)) = beside_those_that_wait(bridge) else { return };
    let mut killed = 0;
    for round in 0..40 {
        // More than wait ahead, so that some are killed before they are ready.
        let order = |_| bridge.order(&["true"], Stdio::Pipes { stdin: false }, Isolation::Shared);
        let ordered: Vec<_> = (0..8).map(order).collect();
        let which = if round % 2 == 0 { Which::Recruits } else { Which::Supervisors };
        let meant = waiting(init, own, which).into_iter();
        let kill = |pid: &i32| sys::kill(Pid::from_raw(*pid).expect("a pid"), libc::SIGKILL).is_ok();
        let dying: Vec<_> = meant.filter(kill).collect();
        killed += dying.len();
        for pid in ordered {
            if bridge.started(pid).is_ok() {
                bridge.exit(pid);
                bridge.ended(pid);
                bridge.forget(pid);
            }
        }
        while dying.iter().any(|pid| parent(*pid).is_some()) {}
        // What a supervisor had just forked dies after it, and may be taken once more.
        let mut refused = Vec::new();
        let next = loop {
            let pid = bridge.order(&["echo", "x"], Stdio::Pipes { stdin: false }, Isolation::Shared);
            match bridge.started(pid) {
                Ok(_) => break pid,
                Err(failure) => refused.push(failure),
            }
            assert!(refused.len() <= dying.len(), "of {} killed: {refused:?}", dying.len());
        };
        assert_eq!((bridge.output(next).as_str(), bridge.exit(next)), ("x\n", ExitStatus::Code(0)));
        bridge.ended(next);
        bridge.forget(next);
    }
    assert!(killed > 0, "nobody waited");
    bridge.kill(running);
    bridge.ended(running);
}

/// A supervisor that has had a program gives nothing of it to the next: neither what it used, nor why it ended.
pub(crate) fn a_supervisor_serves_one_program_after_another(bridge: &mut Bridge) {
    let marker = bridge.marker();
    let limits = Limits { memory: 64 << 20, pids: 64, cpu_millis: 1000 };
    // Busy for a while, then beyond its memory until it is looked at: there may be no control group.
    let hungry =
        "import time\nwhile time.process_time() < 0.2: pass\nx = bytearray(300 << 20)\ntime.sleep(1000)";
    let argv = ["python3", "-c", hungry, &marker];
    let first = bridge.order_within(&argv, Stdio::Pipes { stdin: false }, Isolation::Shared, limits);
    bridge.started(first).expect("starts");
    let supervisor = bridge.supervisor(&marker);
    assert_eq!(bridge.exit_record(first).limit, Some(LimitHit::Memory));
    let of_first = usage(bridge, first);
    assert!(of_first.cpu_us > 200_000 && of_first.max_rss > 32 << 20, "{of_first:?}");

    // More than wait ahead: those that rest are taken after them.
    let mut others = Vec::new();
    while !bridge.supervised(&marker).contains(&supervisor) {
        assert!(others.len() < 32, "the supervisor has no other program");
        let argv = ["sh", "-c", "read x; exit 1", "sh", &marker];
        let pid = bridge.order(&argv, Stdio::Pipes { stdin: true }, Isolation::Shared);
        bridge.started(pid).expect("starts");
        others.push(pid);
    }
    for pid in others {
        bridge.fds.remove(&pid);
        bridge.send(&ToKeeper::CloseStdin { pid });
        let exit = bridge.exit_record(pid);
        assert_eq!((exit.status, exit.limit), (ExitStatus::Code(1), None));
        let used = usage(bridge, pid);
        // With that of the first it would be more.
        assert!(used.cpu_us < of_first.cpu_us && used.max_rss < 32 << 20, "{used:?} after {of_first:?}");
    }
}

/// What has much memory to give back takes a while to end, and nobody has to look on.
pub(crate) fn a_supervisor_sleeps_while_its_program_ends(bridge: &mut Bridge) {
    let marker = bridge.marker();
    // Small pages: each is given back on its own.
    let large = "import mmap, os\nm = mmap.mmap(-1, 900 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\nm.madvise(15)\n\
                 for at in range(0, len(m), 4096): m[at] = 1\nos.close(1)\nos.read(0, 1)\nos._exit(5)";
    let large = ["python3", "-c", large, &marker];
    let pid = bridge.order(&large, Stdio::Pipes { stdin: true }, Isolation::Shared);
    bridge.started(pid).expect("starts");
    let supervisor = bridge.supervisor(&marker);
    assert_eq!(bridge.output(pid), "");
    bridge.fds.remove(&pid);
    let (begin, before) = (Instant::now(), cpu_time(supervisor).expect("a supervisor at work"));
    bridge.send(&ToKeeper::CloseStdin { pid });
    assert_eq!(bridge.exit(pid), ExitStatus::Code(5));
    bridge.ended(pid);
    let used = cpu_time(supervisor).expect("a supervisor that rests") - before;
    let most = begin.elapsed().as_secs_f64() / 2.0;
    assert!(used < most, "{used} of {most} s");
}

fn usage(bridge: &mut Bridge, pid: OurPid) -> Usage {
    bridge.until(|message| match message {
        FromKeeper::Ended { pid: who, usage } if *who == pid => Some(*usage),
        _ => None,
    })
}

/// In seconds.
fn cpu_time(pid: Pid) -> Option<f64> {
    let pid = pid.as_raw_nonzero().get();
    let (user, system): (u64, u64) = (stat(pid, 14)?.parse().ok()?, stat(pid, 15)?.parse().ok()?);
    Some((user + system) as f64 / clock_ticks_per_second() as f64)
}

/// The keeper reads the order before it hears of that.
pub(crate) fn a_spawn_just_after_the_end_of_an_init_gets_a_new_sandbox(bridge: &mut Bridge) {
    let keeper = rustix::process::getppid().expect("the keeper");
    let state = |pid: Pid| stat(pid.as_raw_nonzero().get(), 3);
    for _ in 0..5 {
        let Some((running, _, init)) = beside_those_that_wait(bridge) else { return };
        let init = Pid::from_raw(init).expect("a pid");
        sys::kill(keeper, libc::SIGSTOP).expect("stop the keeper");
        while state(keeper).is_some_and(|state| state != "T") {}
        let pid = bridge.order(&["true"], Stdio::Pipes { stdin: false }, Isolation::Shared);
        sys::kill(init, libc::SIGKILL).expect("kill init");
        while state(init).is_some_and(|state| state != "Z") {}
        sys::kill(keeper, libc::SIGCONT).expect("let the keeper go on");
        bridge.started(pid).expect("starts");
        assert_eq!(bridge.exit(pid), ExitStatus::Code(0));
        bridge.ended(pid);
        assert_eq!(bridge.exit(running), ExitStatus::Lost);
        bridge.ended(running);
    }
}

/// A program that runs, its supervisor and its init; `None` where those that wait belong to the programs' user, whom this
/// bridge cannot signal.
fn beside_those_that_wait(bridge: &mut Bridge) -> Option<(OurPid, i32, i32)> {
    if bridge.tier() == Tier::T3Plus {
        return None;
    }
    let marker = bridge.marker();
    let running = bridge.start(&format!("exec sleep {marker}"));
    let own = bridge.supervisor(&marker).as_raw_nonzero().get();
    Some((running, own, parent(own).expect("an init")))
}

fn waiting(init: i32, own: i32, which: Which) -> Vec<i32> {
    let supervisors: Vec<i32> = ours(init).into_iter().filter(|pid| *pid != own).collect();
    match which {
        Which::Supervisors => supervisors,
        Which::Recruits => supervisors.into_iter().flat_map(ours).collect(),
    }
}

/// Those of its children that are ours.
fn ours(pid: i32) -> Vec<i32> {
    children(pid).into_iter().filter(|pid| is_supervise(*pid)).collect()
}

/// More than wait at any time.
fn six_start(bridge: &mut Bridge) {
    for _ in 0..6 {
        let (output, status) = bridge.run("echo x");
        assert!(output == "x\n" && status == ExitStatus::Code(0), "{output:?} {status:?}");
    }
}
