//! What goes in and comes out besides plain output: large input, terminal sizes, and what is written after the exit.

use std::time::Duration;

use mhnos_testing::{Server, Wire, WireOptions, eventually_async};
use serde_json::{Value, json};

use crate::{options, start};

/// Longest time for what takes milliseconds.
const SOON: Duration = Duration::from_secs(20);

fn bash(script: &str) -> Value {
    json!({"processType": "shell", "command": "bash", "args": ["-c", script], "options": {"pty": false}})
}

#[tokio::test]
async fn who_outlives_its_process_is_named_and_what_it_writes_is_marked() {
    let server = start();
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let made = wire.spawn(bash("mkfifo go")).await;
    wire.run_to_exit(made).await;
    let pid = wire.spawn(bash("(read x < go; echo late) & echo soon; exit 3")).await;
    let (stdout, _, exit) = wire.run_to_exit(pid).await;
    assert_eq!((stdout.as_str(), &exit["code"], &exit["seq"]), ("soon\n", &json!(3), &json!(5)), "{exit}");
    let list = wire.request(json!({"type": "list", "id": 1})).await;
    let lingering = &list["processes"][0]["lingering"];
    assert_eq!(
        (&list["processes"][0]["status"], &lingering[0]["name"]),
        (&json!("exited"), &json!("bash")),
        "{list}"
    );
    assert!(lingering[0]["osPid"].as_i64() > Some(1), "{list}");
}

#[tokio::test]
async fn what_is_written_after_the_exit_is_marked() {
    let server = start();
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let pid = wire.spawn(bash("(while ! [ -e go ]; do sleep 0.05; done; echo late) & echo soon")).await;
    wire.run_to_exit(pid).await;
    server.write("go", "");
    let late = wire.next_where(|message| message["pid"] == pid && message["type"] == "stdout").await;
    assert_eq!(
        (&late["data"], &late["late"], &late["seq"]),
        (&json!("late\n"), &json!(true), &json!(10)),
        "{late}"
    );
    eventually_async(SOON, "nobody lingers any more", async || {
        let list = wire.request(json!({"type": "list", "id": 1})).await;
        (list["processes"] == json!([])).then_some(())
    })
    .await;
    let mut again = Wire::connect_as(server.address(), WireOptions::modern()).await;
    again.send(&json!({"type": "attach", "id": 2, "pid": pid})).await;
    assert_eq!(again.run_to_exit(pid).await.0, "soon\n");
    let late = again.next_where(|message| message["type"] == "stdout").await;
    assert_eq!(late["late"], true, "{late}");
}

#[tokio::test]
async fn all_viewers_are_told_the_size_that_the_latest_has_set() {
    let server = start();
    let mut first = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let mut second = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let spawn = json!({"processType": "shell", "command": "bash", "args": ["-c", "read x; stty size"]});
    let pid = first.spawn(spawn).await;
    second.request(json!({"type": "attach", "id": 1, "pid": pid})).await;
    for (resizer, cols) in [(0, 100), (1, 120)] {
        let resize = json!({"type": "resize", "id": 2, "pid": pid, "cols": cols, "rows": 40});
        let wire = if resizer == 0 { &mut first } else { &mut second };
        assert_eq!(wire.request(resize).await["type"], "resized");
        for wire in [&mut first, &mut second] {
            let size = wire.next_where(|message| message["type"] == "size").await;
            assert_eq!(size, json!({"type": "size", "pid": pid, "cols": cols, "rows": 40}));
        }
    }
    second.send(&json!({"type": "write", "pid": pid, "data": "\r"})).await;
    first.stdout_until(pid, "40 120").await;
}

#[tokio::test]
async fn ten_megabytes_through_cat_come_back_complete() {
    let server = start();
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let pid = wire.spawn(bash("exec cat")).await;
    let mut sent = String::new();
    let mut id = 0;
    while sent.len() < 10_000_000 {
        let piece: String = (0..15_000).map(|number| format!("{:06}\n", id * 15_000 + number)).collect();
        let write = json!({"type": "write", "id": id, "pid": pid, "data": piece});
        assert_eq!(wire.request(write).await["type"], "written");
        sent += &piece;
        id += 1;
    }
    wire.send(&json!({"type": "closeStdin", "pid": pid})).await;
    let (stdout, _, exit) = wire.run_to_exit(pid).await;
    assert_eq!((stdout.len(), &exit["code"]), (sent.len(), &json!(0)));
    assert!(stdout == sent);
}

#[tokio::test]
async fn sixty_kilobytes_pasted_into_a_shell_arrive_complete() {
    let server = start();
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let pid = wire.spawn(json!({"processType": "shell", "command": "bash", "args": ["--norc"]})).await;
    wire.stdout_until(pid, "$ ").await;
    let line = "0123456789abcdef".repeat(3);
    let paste = (0..1200).fold(String::new(), |paste, number| paste + &format!("{number:06}{line}\n"));
    let script = format!("stty -echo; wc -c <<'E'; exit\n{paste}E\n");
    let written = wire.request(json!({"type": "write", "id": 1, "pid": pid, "data": script})).await;
    assert_eq!(written["type"], "written", "{written}");
    let (stdout, ..) = wire.run_to_exit(pid).await;
    assert!(stdout.contains(&format!("{}\r\n", paste.len())), "{} bytes", stdout.len());
}

/// What a shell does that has just started: it takes no notice of the first hang-up, nor of the second if that comes before it
/// had its turn.
#[tokio::test]
async fn a_terminal_hangs_up_until_its_program_has_ended() {
    let server = Server::start(options().env("MHNOS_KILL_GRACE", "10m"));
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let script = "import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def hear(*_):
    missed.append(1)
    if len(missed) == 3: signal.signal(signal.SIGHUP, signal.SIG_DFL)
missed = []
signal.signal(signal.SIGHUP, hear)
print('deaf', flush=True)
while True: time.sleep(60)";
    let spawn = json!({"processType": "python", "command": "-c", "args": [script], "options": {"pty": true}});
    let pid = wire.spawn(spawn).await;
    wire.stdout_until(pid, "deaf").await;
    wire.send(&json!({"type": "kill", "id": 1, "pid": pid})).await;
    let exit = wire.run_to_exit(pid).await.2;
    assert_eq!((&exit["signal"], &exit["reason"]), (&json!("SIGHUP"), &json!("killed")), "{exit}");
}

/// What asks a terminal for an answer, sets a clipboard or a title is passed to the client and answered by nobody else.
#[tokio::test]
async fn escape_sequences_come_as_they_are_and_nobody_answers_them() {
    const ASKED: &str = "\u{1b}]52;c;c2VjcmV0\u{7}\u{1b}P$qm\u{1b}\\\u{1b}[c\u{1b}[6n\u{1b}]10;?\u{7}\u{1b}]0;title\u{7}\u{1b}[21t";
    let server = start();
    server.write("asked", ASKED);
    let mut wire = Wire::connect(server.address()).await;
    let script = "stty -echo; cat asked; echo ready; read -r line; printf '<%s>' \"$line\"";
    let options = json!({"pty": true});
    let spawn =
        json!({"processType": "shell", "command": "bash", "args": ["-c", script], "options": options});
    let pid = wire.spawn(spawn).await;
    let mut seen = String::new();
    while !seen.contains("ready") {
        let message = wire.next_where(|message| message["type"] == "stdout").await;
        seen += message["data"].as_str().expect("text");
    }
    assert!(seen.starts_with(ASKED), "{seen:?}");
    wire.request(json!({"type": "write", "id": 1, "pid": pid, "data": "mine\n"})).await;
    let (rest, _, exit) = wire.run_to_exit(pid).await;
    assert!(rest.contains("<mine>"), "an answer came before: {rest:?} {exit}");
    assert!(!server.log().contains('\u{1b}'), "{}", server.log());
}
