//! Output arrives whole and before the exit; viewers hold a program back, but not for ever.

use mhnos_process::{ExitStatus, Reason, State};
use mhnos_sandbox::{ExtraFd, ExtraFdKind};

use super::{pace::eventually, *};

#[tokio::test(flavor = "multi_thread")]
async fn output_of_both_streams_comes_before_the_exit() {
    let (_keeper, bridge) = bridge().await;
    let process = bridge.sh("echo out; echo err >&2; exit 3").await;
    let seen = finish(&process).await;
    assert_eq!((text(&seen.out), text(&seen.err)), ("out\n".into(), "err\n".into()));
    let exit = seen.exit.expect("exit");
    assert_eq!((exit.status, exit.reason, exit.end_position), (ExitStatus::Code(3), Reason::Exited, 8));
    assert_eq!((exit.usage.output_bytes, exit.usage.cpu_ms), (8, 5));
    assert_eq!(process.state(), State::Exited(exit));
    assert_eq!(process.exited().await, Ok(exit));
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_short_programs_lose_nothing() {
    let (_keeper, bridge) = bridge().await;
    for n in 0..300 {
        let process = bridge.spawn(request("echo", &["ok"], Stdio::Pipes { stdin: false })).await;
        assert_eq!((process.pid(), text(&finish(&process).await.out)), (1000 + n, "ok\n".into()));
    }
    assert_eq!(bridge.processes.stats().active, 0);
    assert_eq!(bridge.processes.stats().total_spawned, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_never_loses_its_tail() {
    let (_keeper, bridge) = bridge().await;
    let expected = seq(30_000, "\r\n");
    for round in 0..20 {
        let process = bridge.spawn(pty("bash", &["--norc", "-i"])).await;
        process.write("stty -echo; seq 1 30000; exit\n".into()).await.expect("write");
        let seen = finish(&process).await;
        assert!(text(&seen.out).contains(&expected), "round {round}: {} bytes", seen.out.len());
        assert!(seen.gaps.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_with_a_fast_viewer_arrives_whole() {
    let (_keeper, bridge) = bridge().await;
    let process = bridge.sh("seq 1 3000000").await;
    let seen = finish(&process).await;
    assert!(seen.gaps.is_empty());
    assert!(
        seen.out
            .split_last()
            .expect("output")
            .1
            .split(|byte| *byte == b'\n')
            .zip(1..)
            .all(|(line, n)| line == format!("{n}").as_bytes())
    );
    assert_eq!(seen.out.len() as u64, seen.exit.expect("exit").end_position);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_takes_nothing_holds_the_program_until_it_stalls() {
    let keeper = Keeper::new(LOG_BYTES);
    let stall = Duration::from_millis(400);
    let bridge = Bridge::start(&keeper, Settings { stall_deadline: stall, ..settings() }).await;
    let process = bridge.sh("echo go; read x; exec yes").await;
    let mut watcher = Watcher::new(&process, Replay::Retained);
    watcher.until_out("go").await;
    let begun = std::time::Instant::now();
    process.write("\n".into()).await.expect("write");
    let held = 512 * 1024;
    eventually(|| process.end_position() > 256 * 1024).await;
    assert!(process.end_position() < held);
    eventually(|| process.end_position() > LOG_BYTES * 2).await;
    assert!(begun.elapsed() >= stall, "the program was not held");
    watcher.until(|seen| !seen.gaps.is_empty()).await;
    let (from, to) = watcher.seen.gaps[0];
    assert!(from < to && from < held);
    process.signal(mhnos_process::Signal::KILL, mhnos_process::Scope::Tree).await.expect("kill");
    watcher.until(|seen| seen.exit.is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_of_a_killed_flood_does_not_wait_for_a_viewer_that_takes_nothing() {
    let keeper = Keeper::new(LOG_BYTES);
    let never = Duration::from_hours(1);
    let bridge = Bridge::start(&keeper, Settings { stall_deadline: never, ..settings() }).await;
    let process = bridge.sh("exec yes").await;
    let asleep = Watcher::new(&process, Replay::Retained);
    eventually(|| process.end_position() > 256 * 1024).await;
    let kill = process.signal(mhnos_process::Signal::KILL, mhnos_process::Scope::Tree);
    tokio::time::timeout(PATIENCE, kill).await.expect("the kill is answered").expect("killed");
    assert!(process.exit().is_some());
    drop(asleep);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_without_viewers_runs_free_and_the_newest_output_stays() {
    let (_keeper, bridge) = bridge().await;
    let process = bridge.sh("seq 1 2000000").await;
    let exit = process.exited().await.expect("exit");
    assert_eq!(exit.end_position, 14_888_896);
    let seen = finish(&process).await;
    assert_eq!(seen.gaps, [(0, exit.end_position - LOG_BYTES)]);
    assert_eq!(seen.out.len() as u64, LOG_BYTES);
    assert!(seen.out.ends_with(b"1999999\n2000000\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_does_not_wait_for_ever_for_output_that_a_descendant_holds_open() {
    let (_keeper, bridge) = bridge().await;
    let process = bridge.sh("(sleep 1.2; echo late) & echo soon").await;
    let mut watcher = Watcher::new(&process, Replay::Retained);
    watcher.until(|seen| seen.exit.is_some()).await;
    assert_eq!(text(&watcher.seen.out), "soon\n");
    assert!(process.lingers());
    assert_eq!(bridge.processes.list(false).len(), 1);
    watcher.until(|seen| seen.late == b"late\n").await;
    assert_eq!(watcher.seen.exit.expect("exit").end_position, 5);
    eventually(|| !process.lingers()).await;
    assert_eq!(bridge.processes.list(false).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_size_reaches_the_program_and_all_viewers() {
    let (_keeper, bridge) = bridge().await;
    let script = "stty size; echo on; read x; stty size";
    let process = bridge.spawn(pty("bash", &["--norc", "-c", script])).await;
    let mut watchers = [Watcher::new(&process, Replay::Retained), Watcher::new(&process, Replay::Retained)];
    for watcher in &mut watchers {
        watcher.until_out("24 80\r\non\r\n").await;
        // Of what has been seen; nothing comes until the program is answered.
        _ = tokio::time::timeout(Duration::ZERO, watcher.wake.notified()).await;
    }
    assert_eq!(process.window_size(), Some(WindowSize::DEFAULT));
    // The latest wins, and every viewer is told to look.
    for size in [WindowSize { cols: 99, rows: 33 }, WindowSize { cols: 132, rows: 43 }] {
        process.resize(size).expect("resize");
        for watcher in &watchers {
            tokio::time::timeout(PATIENCE, watcher.wake.notified()).await.expect("every viewer is woken");
        }
        assert_eq!(process.window_size(), Some(size));
    }
    process.write("\n".into()).await.expect("write");
    for watcher in &mut watchers {
        watcher.until(|seen| seen.exit.is_some()).await;
        assert!(text(&watcher.seen.out).contains("43 132"));
    }
    let piped = bridge.sh("true").await;
    assert!(piped.resize(WindowSize::DEFAULT).is_ok(), "without a terminal it does nothing");
    assert_eq!(piped.window_size(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_all_have_closed_may_be_opened_again() {
    let (_keeper, bridge) = bridge().await;
    let script = "exec </dev/null >/dev/null 2>&1; sleep 0.3; echo again >/dev/tty; sleep 0.3";
    let process = bridge.spawn(pty("sh", &["-c", script])).await;
    let mut watcher = Watcher::new(&process, Replay::Retained);
    watcher.until_out("again").await;
    assert_eq!(process.exit(), None);
    watcher.until(|seen| seen.exit.is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_reports_can_be_waited_for() {
    let (_keeper, bridge) = bridge().await;
    let mut order = sh("echo one >&2; read x; echo two >&2");
    order.launch.extra_fds.push(ExtraFd { fd: 3, kind: ExtraFdKind::Report });
    let process = bridge.spawn(order).await;
    assert_eq!(process.report(0).await.expect("report"), b"one\n");
    process.write("\n".into()).await.expect("write");
    assert_eq!(process.report(4).await.expect("report"), b"one\ntwo\n");
    assert_eq!(process.report(8).await, None);
}
