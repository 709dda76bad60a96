//! What is written to a process arrives in order and whole, or is refused with how much was taken.

use mhnos_process::{
    WriteError,
    limits::{INPUT_QUEUE, INPUT_STALL},
};
use tokio::time::Instant;

use super::*;

fn noise(len: usize) -> Vec<u8> {
    let mut state = 7_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_megabytes_through_cat_arrive_complete() {
    let (_keeper, bridge) = bridge().await;
    let process = bridge.spawn(request("cat", &[], Stdio::Pipes { stdin: true })).await;
    let sent = noise(10_000_000);
    let mut watcher = Watcher::new(&process, Replay::Retained);
    let write = async {
        process.write(sent.clone().into()).await.expect("write");
        process.close_stdin().await.expect("close");
    };
    tokio::join!(write, watcher.until(|seen| seen.exit.is_some()));
    assert!(watcher.seen.out == sent && watcher.seen.gaps.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_kilobytes_into_bash_arrive_complete() {
    let (_keeper, bridge) = bridge().await;
    let process = bridge.spawn(pty("bash", &["--norc", "-i"])).await;
    let mut watcher = Watcher::new(&process, Replay::Retained);
    watcher.until_out("$ ").await;
    let line = "0123456789abcdef".repeat(3);
    let paste = (0..1200).fold(String::new(), |paste, n| paste + &format!("{n:06}{line}\n"));
    let script = format!("stty -echo; wc -c <<'E'; exit\n{paste}E\n");
    process.write(script.into()).await.expect("write");
    watcher.until(|seen| seen.exit.is_some()).await;
    assert!(text(&watcher.seen.out).contains(&format!("\r\n{}\r\n", paste.len())));
}

/// A program that says nothing while it reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_terminal_takes_more_than_it_holds() {
    let (_keeper, bridge) = bridge().await;
    let script = "stty raw -echo; echo ready; head -c 600000 | wc -c";
    let process = bridge.spawn(pty("sh", &["-c", script])).await;
    let mut watcher = Watcher::new(&process, Replay::Retained);
    watcher.until_out("ready").await;
    process.write(vec![b'x'; 600_000].into()).await.expect("write");
    watcher.until(|seen| seen.exit.is_some()).await;
    assert!(text(&watcher.seen.out).contains("600000"), "{}", text(&watcher.seen.out));
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_keep_their_order_and_are_never_mixed() {
    let (_keeper, bridge) = bridge().await;
    let process = bridge.spawn(request("cat", &[], Stdio::Pipes { stdin: true })).await;
    let mut watcher = Watcher::new(&process, Replay::Retained);
    let write = |byte: u8| process.write(vec![byte; 3_000_000].into());
    let (a, b, ()) =
        tokio::join!(write(b'a'), write(b'b'), watcher.until(|seen| seen.out.len() == 6_000_000));
    assert!(a.is_ok() && b.is_ok());
    assert!(watcher.seen.out.is_sorted());
    process.close_stdin().await.expect("close");
    watcher.until(|seen| seen.exit.is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_how_much_was_taken() {
    let (_keeper, bridge) = bridge().await;
    let process = bridge.sh("sleep 1000").await;
    let Err(WriteError::Full { taken }) = process.write(vec![0; 4 << 20].into()).await else {
        panic!("not full")
    };
    assert!((INPUT_QUEUE..=INPUT_QUEUE + (1 << 20)).contains(&taken), "{taken}");
    process.signal(mhnos_process::Signal::KILL, mhnos_process::Scope::Tree).await.expect("kill");
    assert_eq!(process.write("x".into()).await, Err(WriteError::Exited { taken: 0 }));
    assert_eq!(process.close_stdin().await, Err(WriteError::Exited { taken: 0 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stall_is_counted_once_for_all_writes_and_anew_when_something_is_read() {
    let (_keeper, bridge) = bridge().await;
    let script =
        "trap 'head -c 1000000 >/dev/null; echo read' USR1; echo ready; while :; do sleep 1000 & wait; done";
    let process = bridge.sh(script).await;
    let mut watcher = Watcher::new(&process, Replay::Retained);
    watcher.until_out("ready").await;
    let full = process.write(vec![b'x'; 4 << 20].into()).await;
    assert!(matches!(full, Err(WriteError::Full { .. })), "{full:?}");
    let before = Instant::now();
    for _ in 0..100 {
        assert_eq!(process.write(vec![0; 100].into()).await, Err(WriteError::Full { taken: 0 }));
    }
    assert!(before.elapsed() < INPUT_STALL, "refused at once");
    let usr1 = mhnos_process::Signal::from_number(10).expect("SIGUSR1");
    process.signal(usr1, mhnos_process::Scope::Leader).await.expect("told to read");
    watcher.until_out("read\n").await;
    assert_eq!(process.write(vec![0; 1000].into()).await, Ok(()));
    process.signal(mhnos_process::Signal::KILL, mhnos_process::Scope::Tree).await.expect("kill");
}

/// The terminal's own buffer and the queue are all that there is for repeated ends of input.
#[tokio::test(flavor = "multi_thread")]
async fn ends_of_input_to_a_terminal_are_bounded_as_all_input_is() {
    let (_keeper, bridge) = bridge().await;
    let process = bridge.spawn(pty("sh", &["-c", "stty raw -echo; echo ready; sleep 1000"])).await;
    let mut watcher = Watcher::new(&process, Replay::Retained);
    watcher.until_out("ready").await;
    let full = process.write(vec![b'x'; 4 << 20].into()).await;
    assert!(matches!(full, Err(WriteError::Full { .. })), "{full:?}");
    assert_eq!(process.close_stdin().await, Err(WriteError::Full { taken: 0 }));
    process.signal(mhnos_process::Signal::KILL, mhnos_process::Scope::Tree).await.expect("kill");
    assert_eq!(process.close_stdin().await, Err(WriteError::Exited { taken: 0 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_to_a_closed_stdin_is_an_error_and_nothing_else() {
    let (_keeper, bridge) = bridge().await;
    let process = bridge.sh("exec <&-; echo closed; sleep 1000").await;
    let mut watcher = Watcher::new(&process, Replay::Retained);
    watcher.until_out("closed").await;
    assert_eq!(process.write("x".into()).await, Err(WriteError::Closed { taken: 0 }));
    let without = bridge.spawn(request("sleep", &["1000"], Stdio::Pipes { stdin: false })).await;
    assert_eq!(without.write("x".into()).await, Err(WriteError::Closed { taken: 0 }));
    let cat = bridge.spawn(request("cat", &[], Stdio::Pipes { stdin: true })).await;
    cat.close_stdin().await.expect("close");
    assert!(matches!(
        cat.write("x".into()).await,
        Err(WriteError::Closed { .. } | WriteError::Exited { .. })
    ));
    assert_eq!(finish(&cat).await.out, b"");
    bridge.processes.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn end_of_file_on_a_terminal_ends_a_shell() {
    let (_keeper, bridge) = bridge().await;
    let process = bridge.spawn(pty("cat", &[])).await;
    process.write("hello\n".into()).await.expect("write");
    process.close_stdin().await.expect("close");
    let seen = finish(&process).await;
    assert_eq!(text(&seen.out), "hello\r\nhello\r\n");
}
