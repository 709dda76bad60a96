//! Bridges die; processes, output, stops, numbers and counters go on with the next one.

use std::{
    os::fd::AsFd,
    process::{Child, Command, Stdio as ProcessStdio},
    task::Poll,
};

use mhnos_process::{Encoding, ExitStatus, Gone, OnEnd, Reason, Scope, Signal, SignalOutcome, State};

use super::{
    pace::{eventually, pause},
    *,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_bridge_goes_on_where_the_old_one_died() {
    let (keeper, first) = bridge().await;
    let info = Info {
        process_type: "python".into(),
        command: Some("x.py".into()),
        args: vec!["a b".into()],
        name: Some("name".into()),
        encoding: Encoding::Base64,
        extra: vec![1, 2, 3],
    };
    let order = SpawnRequest { info: info.clone(), ..sh("seq 1 50000; read x; seq 50001 100000; exit 7") };
    let process = first.spawn(order).await;
    let done = first.sh("echo done; exit 4").await;
    let exit = finish(&done).await.exit;
    let terminal = first.spawn(pty("bash", &["--norc", "-i"])).await;
    terminal.resize(WindowSize { cols: 99, rows: 33 }).expect("resize");
    let mut watcher = Watcher::new(&process, Replay::Retained);
    watcher.until(|seen| seen.out.len() > 1000).await;
    let (position, mut out) = (watcher.viewer.position(), watcher.seen.out);
    assert!(first.processes.set_service_note(b"tools".to_vec()).await);
    let started_ms = process.started_ms();
    first.die().await;

    let second = Bridge::start(&keeper, settings()).await;
    assert_eq!(
        (second.processes.welcome().generation, second.processes.service_note()),
        (2, b"tools".to_vec())
    );
    let process = second.processes.get(1000).expect("adopted");
    assert_eq!((process.info(), process.started_ms(), process.state()), (&info, started_ms, State::Running));
    let mut watcher = Watcher::new(&process, Replay::After(position));
    process.write("\n".into()).await.expect("write");
    watcher.until(|seen| seen.exit.is_some()).await;
    out.extend_from_slice(&watcher.seen.out);
    assert!(text(&out) == seq(100_000, "\n") && watcher.seen.gaps.is_empty());
    assert_eq!(watcher.seen.exit.expect("exit").status, ExitStatus::Code(7));

    let done = second.processes.get(1001).expect("retained");
    let seen = finish(&done).await;
    assert_eq!((seen.out, seen.exit), (b"done\n".to_vec(), exit));
    let terminal = second.processes.get(1002).expect("adopted");
    assert_eq!(terminal.window_size(), Some(WindowSize { cols: 99, rows: 33 }));
    assert_eq!(terminal.signal(Signal::HUP, Scope::Tree).await, Ok(SignalOutcome::Ended));
    assert!(second.sh("true").await.pid() > 1002);
    assert_eq!((second.processes.stats().total_spawned, second.processes.stats().total_killed), (4, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_had_begun_is_carried_out_by_the_next_bridge() {
    let (keeper, first) = bridge().await;
    let process = first.sh("trap '' TERM; echo on; while :; do sleep 1000; done").await;
    Watcher::new(&process, Replay::Retained).until_out("on").await;
    let timed = SpawnRequest { timeout: Some(Duration::from_millis(600)), ..sh("exec sleep 1000") };
    first.spawn(timed).await;
    tokio::select! {
        outcome = process.signal(Signal::TERM, Scope::Tree) => panic!("{outcome:?}"),
        () = eventually(|| process.state() != State::Running) => {}
    }
    first.die().await;
    let second = Bridge::start(&keeper, settings()).await;
    let reason = async |pid| second.processes.get(pid).expect("adopted").exited().await.expect("exit").reason;
    assert_eq!((reason(1000).await, reason(1001).await), (Reason::Killed, Reason::Timeout));
    assert_eq!(second.processes.stats().total_killed, 2);
}

/// Its output has ended with it: the record waits for nobody.
#[tokio::test(flavor = "multi_thread")]
async fn an_exit_told_while_a_silent_descendant_lives_is_told_as_it_was() {
    let (keeper, first) = bridge().await;
    let process = first.sh("sleep 1000 >/dev/null 2>&1 & exit 0").await;
    let told = process.exited().await.expect("exit");
    assert_eq!((told.status, told.reason), (ExitStatus::Code(0), Reason::Exited));
    assert!(process.lingers());
    process.signal(Signal::KILL, Scope::Tree).await.expect("there was something to kill");
    let before = first.processes.stats();
    first.die().await;
    let second = Bridge::start(&keeper, settings()).await;
    let again = second.processes.get(1000).expect("adopted").exited().await;
    assert_eq!((again, second.processes.stats()), (Ok(told), before));
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_survive_what_was_forgotten() {
    let keeper = Keeper::new(LOG_BYTES);
    let few = Settings { retain_count: 1, ..settings() };
    let first = Bridge::start(&keeper, few.clone()).await;
    for _ in 0..3 {
        let process = first.sh("exec sleep 1000").await;
        process.signal(Signal::KILL, Scope::Tree).await.expect("kill");
    }
    keeper.forgotten(&[1000, 1001]);
    let before = first.processes.stats();
    first.die().await;
    let second = Bridge::start(&keeper, few).await;
    let pid = second.sh("true").await.pid();
    assert!(pid > 1002, "{pid} was used before");
    eventually(|| second.processes.stats().total_killed == before.total_killed).await;
    assert_eq!(second.processes.stats().total_spawned, before.total_spawned + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_of_the_service_that_cannot_be_read_keeps_no_bridge_from_serving() {
    let (keeper, first) = bridge().await;
    let process = first.sh("read x; exit 5").await;
    first.die().await;
    keeper.channel();
    keeper.note(&[0xff; 8]);
    let second = Bridge::start(&keeper, settings()).await;
    assert!(second.sh("true").await.pid() > process.pid());
    let process = second.processes.get(process.pid()).expect("adopted");
    process.write("\n".into()).await.expect("write");
    assert_eq!(finish(&process).await.exit.expect("exit").status, ExitStatus::Code(5));
}

const VICTIM: &str = "adoption::victim";

/// Not a test of its own: a bridge that is killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by the test below"]
async fn victim() {
    let Ok(stdin) = std::io::stdin().as_fd().try_clone_to_owned() else { return };
    let Ok((processes, mut driver)) = Processes::connect(stdin, settings()).await else { return };
    let mut viewers = tokio::task::JoinSet::new();
    for process in processes.list(true) {
        viewers.spawn(async move { finish(&process).await });
    }
    driver.run().await;
}

fn start_victim(keeper: &Arc<Keeper>) -> Child {
    Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", VICTIM, "--ignored", "--nocapture"])
        .stdin(keeper.channel())
        .stdout(ProcessStdio::null())
        .stderr(ProcessStdio::null())
        .spawn()
        .expect("spawn")
}

#[tokio::test(flavor = "multi_thread")]
async fn bridges_killed_over_and_over_lose_no_byte_and_double_none() {
    let keeper = Keeper::new(64 << 20);
    let first = Bridge::start(&keeper, settings()).await;
    let slow = "i=0; while [ $i -lt 300 ]; do seq $((i * 1000 + 1)) $((i * 1000 + 1000)); i=$((i + 1)); sleep 0.005; done";
    let piped = first.sh(slow).await.pid();
    let terminal = first.spawn(pty("sh", &["-c", slow])).await.pid();
    first.die().await;
    for round in 0..40 {
        let mut child = start_victim(&keeper);
        pause(Duration::from_micros(5000 + round * 1777 % 40_000));
        child.kill().expect("kill");
        child.wait().expect("wait");
    }
    let last = Bridge::start(&keeper, settings()).await;
    for (pid, end_of_line) in [(piped, "\n"), (terminal, "\r\n")] {
        let process = last.processes.get(pid).expect("adopted");
        let seen = finish(&process).await;
        let expected = seq(300_000, end_of_line);
        assert!(seen.out == expected.as_bytes(), "{} bytes instead of {}", seen.out.len(), expected.len());
        assert_eq!(seen.exit.expect("exit").status, ExitStatus::Code(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_what_serves_one_process_ends_the_bridge_and_the_next_one_loses_nothing() {
    let keeper = Keeper::new(64 << 20);
    let panics = OnEnd(Arc::new(|end| assert!(end.process.info().name.is_none(), "on purpose")));
    let first = Bridge::start(&keeper, Settings { on_end: Some(panics), ..settings() }).await;
    let flood = first.sh("seq 1 100000; read x; seq 100001 300000").await;
    let info = Info { name: Some("fatal".into()), ..Info::default() };
    let fatal = first.spawn(SpawnRequest { info, ..sh("echo last words; read x; exit 5") }).await;
    let mut watcher = Watcher::new(&flood, Replay::Retained);
    watcher.until(|seen| seen.out.len() > 1000).await;
    let (position, mut out) = (watcher.viewer.position(), watcher.seen.out);
    fatal.write("\n".into()).await.expect("write");
    let end = first.driver.await.expect("the panic goes no further");
    let DriverEnd::Panicked { pid: 1001, what } = end else { panic!("{end:?}") };
    assert!(what.contains("on purpose"), "{what}");
    drop(first.processes);

    let second = Bridge::start(&keeper, settings()).await;
    let seen = finish(&second.processes.get(1001).expect("adopted")).await;
    assert_eq!((seen.out, seen.exit.expect("exit").status), (b"last words\n".to_vec(), ExitStatus::Code(5)));
    let flood = second.processes.get(1000).expect("adopted");
    let mut watcher = Watcher::new(&flood, Replay::After(position));
    flood.write("\n".into()).await.expect("write");
    watcher.until(|seen| seen.exit.is_some()).await;
    out.extend_from_slice(&watcher.seen.out);
    assert!(text(&out) == seq(300_000, "\n") && watcher.seen.gaps.is_empty());
    eventually(|| second.processes.stats().active == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_process_is_told_nothing_wrong_when_what_serves_it_panics() {
    let keeper = Keeper::new(LOG_BYTES);
    let panics = OnEnd(Arc::new(|_| panic!("on purpose")));
    let settings = Settings { on_end: Some(panics), ..settings() };
    let (processes, mut driver) = Processes::connect(keeper.channel(), settings).await.expect("connect");
    let spawned = tokio::select! {
        spawned = processes.spawn(sh("read x")) => spawned.expect("spawn"),
        end = driver.run() => panic!("{end:?}"),
    };
    let exit = spawned.exited();
    tokio::pin!(exit);
    spawned.write("\n".into()).await.expect("write");
    let end = tokio::select! {
        end = driver.run() => end,
        exit = &mut exit => panic!("{exit:?}"),
    };
    assert!(matches!(end, DriverEnd::Panicked { .. }), "{end:?}");
    let still = async { std::future::poll_fn(|cx| Poll::Ready(exit.as_mut().poll(cx).is_pending())).await };
    assert!(still.await, "an end was told");
    drop(driver);
    assert_eq!(exit.await, Err(Gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_of_the_keeper_that_is_lost_ends_the_bridge_and_the_next_one_hears_all() {
    let keeper = Keeper::new(LOG_BYTES);
    let first = Bridge::start(&keeper, settings()).await;
    let process = first.sh("read x; exit 5").await;
    keeper.mumble();
    let end = tokio::time::timeout(Duration::from_mins(1), first.driver).await.expect("it ends");
    assert!(matches!(end, Ok(DriverEnd::Unheard(_))), "{end:?}");
    drop(first.processes);
    let second = Bridge::start(&keeper, settings()).await;
    let process = second.processes.get(process.pid()).expect("adopted");
    process.write("\n".into()).await.expect("write");
    assert_eq!(finish(&process).await.exit.expect("exit").status, ExitStatus::Code(5));
}
