//! How processes end, and what of them stays: stops, limits, retention, the drain.

use std::time::{Instant, UNIX_EPOCH};

use mhnos_process::{DialError, ExitStatus, Gone, Reason, Scope, Signal, SignalOutcome, SpawnError, State};

use super::{pace::eventually, *};

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_ignores_sigterm_is_killed_after_the_grace_period() {
    let (_keeper, bridge) = bridge().await;
    let process =
        bridge.sh("trap '' TERM; sh -c 'sleep 1000; :' & echo on; while :; do sleep 1000; done").await;
    let mut watcher = Watcher::new(&process, Replay::Retained);
    watcher.until_out("on").await;
    let begun = Instant::now();
    let outcome = process.signal(Signal::TERM, Scope::Tree);
    let look = async {
        eventually(|| process.state() != State::Running).await;
        assert_eq!(process.state(), State::Stopping { reason: Reason::Killed, signal: Signal::TERM });
    };
    let (outcome, ()) = tokio::join!(outcome, look);
    assert_eq!(outcome, Ok(SignalOutcome::Ended));
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let exit = process.exit().expect("the exit is set before the kill is answered");
    assert_eq!((exit.status, exit.reason), (ExitStatus::Signal(9), Reason::Killed));
    assert_eq!(bridge.processes.stats().total_killed, 1);
    assert_eq!(process.signal(Signal::TERM, Scope::Tree).await, Err(Gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn descendants_that_survive_their_leader_are_killed_with_the_tree() {
    let (_keeper, bridge) = bridge().await;
    let process =
        bridge.sh("(trap '' TERM; echo on; exec >&- 2>&-; while :; do sleep 1000; done) & wait").await;
    Watcher::new(&process, Replay::Retained).until_out("on").await;
    let begun = Instant::now();
    assert_eq!(process.signal(Signal::TERM, Scope::Tree).await, Ok(SignalOutcome::Ended));
    assert!(begun.elapsed() >= Duration::from_millis(300), "somebody ignored SIGTERM");
    assert_eq!(process.exit().expect("exit").status, ExitStatus::Signal(15));
    assert!(!process.lingers());
}

/// What a supervisor is asked for as its tree ends it does not answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_under_way_as_the_tree_ends_is_given_up() {
    let (_keeper, bridge) = bridge().await;
    let process = bridge.sh("exec sleep 1000").await;
    let dial = bridge.processes.dial(&process, keeper::UNANSWERED);
    let (dialed, ended) = tokio::join!(dial, process.signal(Signal::KILL, Scope::Tree));
    assert_eq!(ended, Ok(SignalOutcome::Ended));
    assert!(matches!(dialed, Err(DialError::Gone)), "{dialed:?}");
}

/// Its record still waits for output that a descendant holds open.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_of_a_leader_that_has_just_ended_is_answered_after_the_exit() {
    let (_keeper, bridge) = bridge().await;
    let process = bridge.sh("sleep 1000 & exit 0").await;
    let cont = Signal::from_number(18).expect("SIGCONT");
    while process.signal(cont, Scope::Leader).await == Ok(SignalOutcome::Delivered) {
        tokio::task::yield_now().await;
    }
    assert_eq!(process.signal(Signal::TERM, Scope::Leader).await, Err(Gone));
    assert_eq!(process.exit().expect("exit").reason, Reason::Exited);
    process.signal(Signal::KILL, Scope::Tree).await.expect("there was something to kill");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_signals_are_answered_when_they_are_sent() {
    let (_keeper, bridge) = bridge().await;
    let process = bridge.sh("trap 'echo usr1' USR1; echo on; while :; do sleep 0.01; done").await;
    let mut watcher = Watcher::new(&process, Replay::Retained);
    watcher.until_out("on").await;
    let usr1 = Signal::from_number(10).expect("SIGUSR1");
    assert_eq!(process.signal(usr1, Scope::Leader).await, Ok(SignalOutcome::Delivered));
    watcher.until_out("usr1").await;
    assert_eq!(process.state(), State::Running);
    assert_eq!(process.signal(Signal::KILL, Scope::Leader).await, Ok(SignalOutcome::Ended));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_stops_at_its_time_and_a_huge_one_does_not() {
    let (_keeper, bridge) = bridge().await;
    let short = SpawnRequest { timeout: Some(Duration::from_millis(100)), ..sh("exec sleep 1000") };
    let huge = SpawnRequest { timeout: Some(Duration::MAX), ..sh("sleep 0.3") };
    let past_31_bits =
        SpawnRequest { timeout: Some(Duration::from_millis((1 << 31) + 10)), ..sh("sleep 0.3") };
    let started = [bridge.spawn(short).await, bridge.spawn(huge).await, bridge.spawn(past_31_bits).await];
    let mut reasons = Vec::new();
    for process in &started {
        reasons.push(process.exited().await.expect("exit").reason);
    }
    assert_eq!(reasons, [Reason::Timeout, Reason::Exited, Reason::Exited]);
    assert!(started[0].exit().expect("exit").runtime_ms >= 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_never_passes_the_limit_and_the_place_is_free_when_the_exit_is_told() {
    let keeper = Keeper::new(LOG_BYTES);
    let bridge = Bridge::start(&keeper, Settings { max_processes: 3, ..settings() }).await;
    let burst = (0..20).map(|_| {
        let processes = bridge.processes.clone();
        tokio::spawn(async move { processes.spawn(sh("read x")).await })
    });
    let mut started = Vec::new();
    for spawn in burst.collect::<Vec<_>>() {
        match spawn.await.expect("no panic") {
            Ok(process) => started.push(process),
            Err(error) => assert_eq!(error, SpawnError::Limit { max: 3 }),
        }
    }
    assert_eq!((started.len(), keeper.orders(), bridge.processes.stats().active), (3, 3, 3));
    for _ in 0..50 {
        let process = started.remove(0);
        process.write("\n".into()).await.expect("write");
        finish(&process).await;
        started.push(bridge.sh("read x").await);
    }
    let probe = SpawnRequest { probe: true, ..sh("echo v1") };
    let probe = bridge.spawn(probe).await;
    assert_eq!((finish(&probe).await.out, probe.pid()), (b"v1\n".to_vec(), 1));
    assert_eq!(bridge.processes.stats().total_spawned, 53);
    keeper.forgotten(&[1]);
    bridge.processes.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_started_is_an_error_and_takes_no_place() {
    let (_keeper, bridge) = bridge().await;
    let Err(SpawnError::Failed(failure)) =
        bridge.processes.spawn(request("/nonexistent", &[], Stdio::Pipes { stdin: true })).await
    else {
        panic!("started")
    };
    assert_eq!((failure.errno, failure.detail.as_str()), (2, "/nonexistent"));
    let too_large = SpawnRequest { info: Info { extra: vec![0; 1 << 20], ..Info::default() }, ..sh("true") };
    assert_eq!(bridge.processes.spawn(too_large).await.map(|_| ()), Err(SpawnError::TooLarge));
    assert_eq!(bridge.processes.stats().active, 0);
    assert!(bridge.processes.list(true).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_newest_ended_ones_are_retained() {
    let keeper = Keeper::new(LOG_BYTES);
    let bridge = Bridge::start(&keeper, Settings { retain_count: 2, ..settings() }).await;
    for n in 0..5 {
        let process = bridge.sh(&format!("echo {n}")).await;
        finish(&process).await;
        eventually(|| !process.lingers()).await;
    }
    let kept = keeper.forgotten(&[1000, 1001, 1002]);
    assert_eq!(kept, [1003, 1004]);
    let listed: Vec<_> = bridge.processes.list(true).iter().map(|process| process.pid()).collect();
    assert_eq!(listed, [1003, 1004]);
    let last = bridge.processes.get(1004).expect("retained");
    assert_eq!(finish(&last).await.out, b"4\n");
    assert!(bridge.processes.get(1000).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_bridge_retains_the_newest_too() {
    let keeper = Keeper::new(LOG_BYTES);
    let few = Settings { retain_count: 2, ..settings() };
    let first = Bridge::start(&keeper, few.clone()).await;
    let [newer, older] = [first.sh("read x").await, first.sh("read x").await];
    let mut ended_ms = 0;
    for process in [&older, &newer] {
        // In another millisecond than the last.
        eventually(|| UNIX_EPOCH.elapsed().is_ok_and(|now| now.as_millis() > u128::from(ended_ms))).await;
        process.write("\n".into()).await.expect("write");
        ended_ms = process.exited().await.expect("exit").ended_ms;
        eventually(|| !process.lingers()).await;
    }
    first.die().await;
    let second = Bridge::start(&keeper, few).await;
    eventually(|| second.processes.list(false).is_empty()).await;
    let newest = second.sh("true").await;
    finish(&newest).await;
    assert_eq!(keeper.forgotten(&[older.pid()]), [newer.pid(), newest.pid()]);
}

/// A probe that has ended is forgotten, and takes the place of none that has.
#[tokio::test(flavor = "multi_thread")]
async fn probes_are_none_of_those_that_are_retained() {
    let keeper = Keeper::new(LOG_BYTES);
    let bridge = Bridge::start(&keeper, Settings { retain_count: 2, ..settings() }).await;
    for _ in 0..2 {
        let process = bridge.sh("true").await;
        finish(&process).await;
        eventually(|| !process.lingers()).await;
    }
    let probe = bridge.spawn(SpawnRequest { probe: true, ..sh("true") }).await;
    finish(&probe).await;
    assert_eq!(keeper.forgotten(&[probe.pid()]), [1000, 1001]);
    assert_eq!(bridge.processes.list(true).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_long_ago_is_forgotten() {
    let keeper = Keeper::new(LOG_BYTES);
    let bridge =
        Bridge::start(&keeper, Settings { retain_for: Duration::from_millis(50), ..settings() }).await;
    let process = bridge.sh("echo kept").await;
    let mut watcher = Watcher::new(&process, Replay::Retained);
    keeper.forgotten(&[1000]);
    assert!(bridge.processes.list(true).is_empty());
    watcher.until(|seen| seen.exit.is_some()).await;
    assert_eq!(watcher.seen.out, b"kept\n", "who is attached keeps the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_everything_and_starts_nothing() {
    let (keeper, bridge) = bridge().await;
    let polite = bridge.sh("echo on; exec sleep 1000").await;
    let stubborn = bridge.sh("trap '' TERM; echo on; while :; do sleep 1000; done").await;
    for process in [&polite, &stubborn] {
        Watcher::new(process, Replay::Retained).until_out("on").await;
    }
    keeper.ask_to_drain();
    bridge.processes.drain_requested().await;
    let (refused, ()) = tokio::join!(
        async {
            tokio::task::yield_now().await;
            bridge.processes.spawn(sh("true")).await.map(|_| ())
        },
        bridge.processes.drain()
    );
    assert_eq!(refused, Err(SpawnError::Draining));
    for (process, signal) in [(&polite, 15), (&stubborn, 9)] {
        let exit = process.exit().expect("ended");
        assert_eq!((exit.status, exit.reason), (ExitStatus::Signal(signal), Reason::Shutdown));
    }
    bridge.processes.drained().await;
    assert!(keeper.drained());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_keeper_nothing_starts_and_nobody_waits_for_ever() {
    let (keeper, bridge) = bridge().await;
    let process = bridge.sh("exec sleep 1000").await;
    keeper.mute(true);
    let (killed, end) = tokio::join!(process.signal(Signal::KILL, Scope::Tree), async {
        eventually(|| process.state() != State::Running).await;
        keeper.vanish();
        bridge.driver.await.expect("no panic")
    });
    assert_eq!(killed, Err(Gone));
    assert!(matches!(end, DriverEnd::Closed | DriverEnd::Channel(_)), "{end:?}");
    let spawned = bridge.processes.spawn(sh("true")).await.map(|_| ());
    assert!(matches!(spawned, Err(SpawnError::Draining | SpawnError::KeeperGone)), "{spawned:?}");
    assert_eq!(process.exited().await, Err(Gone));
}
