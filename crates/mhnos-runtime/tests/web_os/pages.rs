//! What a person does with the HUD: connect, ask, start, read, kill, reload, come back.

use std::time::{Duration, Instant};

use mhnos_testing::{Server, Wire, WireOptions, eventually_async};
use serde_json::{Value, json};

use crate::desk::{Desk, command, until};
use crate::options;

/// Longest wait for what takes milliseconds.
const SOON: Duration = Duration::from_secs(30);

/// Waits until a process has ended, as another client sees it.
async fn ended(server: &Server, pid: u64) {
    let mut wire = Wire::connect(server.address()).await;
    eventually_async(SOON, "the process ends", async || {
        let list = wire.request(json!({"type": "list", "id": "list", "all": true})).await;
        let processes = list["processes"].as_array().expect("an array");
        let ended = |process: &&Value| process["pid"] == pid && process["status"] == "exited";
        processes.iter().find(ended).map(drop)
    })
    .await;
}

#[tokio::test]
async fn points_1_2_3_6_7_8_9_10_the_page_connects_and_everything_it_asks_is_answered() {
    let mut desk = Desk::open().await;
    desk.draws("info", "[Runtime] Protocol v1.1.0").await;
    let lines = desk.done("runtime status").await;
    assert_eq!(lines, ["sandbox strict, OpenClaw false", "spawned 0, active 0"]);
    let lines = desk.done("runtime ping").await;
    assert!(lines[0].starts_with("pong after"), "{lines:?}");
    assert!(desk.done("runtime list").await.is_empty());
    let lines = desk.command("runtime s3status").await;
    assert!(lines[0].starts_with("ERROR") && lines[0].contains("s3status"), "{lines:?}");
    assert_eq!(desk.tab.evaluate("os.bridge.opened").await, 1);
    desk.is_golden("asking").await;
}

#[tokio::test]
async fn points_11_to_16_what_is_typed_is_started_or_refused_by_name() {
    let mut desk = Desk::open_with(options().env("MHNOS_ALLOW_OPENCLAW", "false")).await;
    desk.save("/project/app.js", b"console.log(JSON.stringify(process.argv.slice(2)), process.cwd())").await;
    desk.save("/project/w.js", b"export default { fetch() { return new Response('hello') } }").await;
    let config = b"using Workerd = import \"/workerd/workerd.capnp\";\nconst config :Workerd.Config = (services = [(name = \"main\", worker = .w)], sockets = [(name = \"http\", address = \"127.0.0.1:0\", http = (), service = \"main\")]);\nconst w :Workerd.Worker = (modules = [(name = \"w.js\", esModule = embed \"w.js\")], compatibilityDate = \"2026-11-01\");\n";
    desk.save("/project/config.capnp", config).await;
    desk.done("runtime push").await;
    desk.done("cd /project").await;
    let commands = ["app.js", "/project/app.js", "/workspace/project/app.js"];
    for (command, expected) in commands.into_iter().zip(1000..) {
        let pid = desk.start(&format!("runtime node {command} one  two")).await;
        assert_eq!(pid, expected, "a number that counts from 1000");
        // Dropped by the page: what was on its way to it while it attaches would be drawn, and then replayed.
        let told = format!("receive?.type === 'stdout' && receive.pid === {pid}");
        desk.until(&format!("os.bridge.frames.some(({{receive}}) => {told})")).await;
        desk.done(&format!("runtime attach {pid}")).await;
        desk.until("os.caught === null").await;
    }
    let drawn = desk.tab.evaluate("os.hud.filter(({kind}) => kind === 'stdout').map(({text}) => text)").await;
    let line = format!("[\"one\",\"\",\"two\"] {}/project\n", desk.server.workspace().display());
    assert_eq!(drawn, json!([line, line, line]));
    let pid = desk.start("runtime node -p 6*7").await;
    desk.done(&format!("runtime attach {pid}")).await;
    desk.draws("stdout", "42").await;
    desk.until("os.caught === null").await;
    desk.start("runtime workerd /project/config.capnp").await;
    desk.start("rshell").await;

    for (line, says) in [
        ("runtime node missing.js", "missing.js"),
        ("runtime python /nowhere/app.py", "/nowhere/app.py"),
        ("runtime openclaw gateway", "OpenClaw"),
        ("runtime workerd /project/none.capnp", "none.capnp"),
    ] {
        let lines = desk.command(line).await;
        assert!(lines[0].starts_with("ERROR") && lines[0].contains(says), "{line}: {lines:?}");
    }
    desk.done("cd /never-pushed").await;
    let lines = desk.command("rshell").await;
    assert!(lines[0].starts_with("ERROR") && lines[0].contains("/never-pushed"), "{lines:?}");
    // No phantom: the worker and the shell are what runs.
    assert_eq!(desk.tab.evaluate("os.bridge.processes.size").await, 2);
    assert_eq!(desk.done("runtime list").await.len(), 2);
}

#[tokio::test]
async fn points_15_17_18_19_21_22_23_a_short_program_is_read_after_its_end() {
    let mut desk = Desk::open().await;
    let script =
        b"process.stdout.write('one\\ntwo\\n'); process.stderr.write('to stderr\\n'); process.exitCode = 3";
    desk.save("/short.js", script).await;
    desk.done("runtime push").await;
    let pid = desk.start("runtime node short.js").await;
    ended(&desk.server, pid).await;
    assert_eq!(desk.tab.evaluate("os.bridge.processes.size").await, 1, "its exit is held back");
    for stream in ["stdout", "stderr"] {
        // Dropped by the page, which has not attached.
        desk.until(&format!("os.bridge.frames.some(({{receive}}) => receive?.type === '{stream}')")).await;
    }
    desk.done(&format!("runtime attach {pid}")).await;
    desk.until("os.caught === null").await;
    let drawn = desk
        .tab
        .evaluate("os.hud.filter(({kind}) => kind === 'stdout' || kind === 'stderr').map(({kind, text}) => [kind, text])")
        .await;
    let mut drawn: Vec<Value> = drawn.as_array().expect("lines").clone();
    drawn.sort_by_key(ToString::to_string);
    assert_eq!(drawn, [json!(["stderr", "to stderr\n"]), json!(["stdout", "one\ntwo\n"])]);
    desk.draws("info", "[Process exited with code 3, signal null]").await;
    desk.is_golden("short-program").await;
}

#[tokio::test]
async fn point_18_an_exit_waits_for_an_attach_but_not_for_ever() {
    let server = Server::start(options());
    let mut wire = Wire::connect_as(server.address(), WireOptions::browser()).await;
    let begin = Instant::now();
    let pid = wire.spawn(json!({"processType": "node", "command": "-p", "args": ["6*7"]})).await;
    let (stdout, _, exit) = wire.run_to_exit(pid).await;
    assert_eq!((stdout.as_str(), &exit["code"]), ("42\n", &json!(0)));
    assert!(begin.elapsed() >= Duration::from_secs(15), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn point_26_kill_ends_an_interactive_shell_and_its_window_says_so() {
    let mut desk =
        Desk::open_in(options().env("MHNOS_KILL_GRACE", "10m"), &[(".bashrc", b"PS1='$ '\n")]).await;
    let pid = desk.start("rshell").await;
    desk.shows(0, "$").await;
    desk.fitted(0).await;
    desk.done(&format!("runtime kill {pid}")).await;
    desk.shows(0, "[Process exited with code null, signal SIG").await;
    assert_eq!(desk.done("runtime list").await, Vec::<String>::new());
    // Whoever kills what is gone gets an answer.
    desk.command(&format!("runtime kill {pid}")).await;
    let lines = desk.command("runtime kill 4711").await;
    assert!(lines[0].contains("4711"), "{lines:?}");
    desk.is_golden("kill-shell").await;
}

#[tokio::test]
async fn point_20_a_closed_window_still_lets_its_process_leave_the_table() {
    let mut desk = Desk::open().await;
    desk.save("/wait.py", b"input()\n").await;
    desk.done("runtime push").await;
    let pid = desk.start("runtime python wait.py").await;
    desk.done(&format!("window {pid}")).await;
    desk.fitted(0).await;
    desk.tab.evaluate("os.windows[0].close()").await;
    // Another window of the page would send this.
    desk.tab.evaluate(&format!("os.bridge.send({{type: 'write', pid: {pid}, data: 'done\\r'}})")).await;
    desk.until("os.bridge.processes.size === 0").await;
    desk.is_golden("closed-window").await;
}

#[tokio::test]
async fn point_5_processes_outlive_a_reload_and_are_listed_and_killed_afterwards() {
    let mut desk = Desk::open().await;
    let pid = desk.start("rshell").await;
    desk.tab.reload().await;
    desk.until("os.hud.some(({text}) => text.startsWith('[Runtime] Protocol v'))").await;
    let lines = desk.done("runtime list").await;
    assert_eq!(lines, [format!("{pid} shell /bin/bash running")]);
    let lines = desk.command(&format!("runtime attach {pid}")).await;
    assert_eq!(lines, [format!("ERROR No process {pid}")], "the page itself refuses that");
    assert_eq!(desk.done(&format!("runtime kill {pid}")).await, [format!("Killed {pid}")]);
    assert!(desk.done("runtime list").await.is_empty());
}

#[tokio::test]
async fn point_25_a_second_tab_writes_to_and_kills_what_it_did_not_start() {
    let mut desk = Desk::open().await;
    desk.save("/ask.py", b"print('hello', input())\ninput()\n").await;
    desk.done("runtime push").await;
    let pid = desk.start("runtime python ask.py").await;
    desk.done(&format!("window {pid}")).await;
    let mut second = desk.second_tab().await;
    assert_eq!(command(&mut second, &format!("window {pid}")).await, Vec::<String>::new());
    let type_you = format!("os.bridge.send({{type: 'write', pid: {pid}, data: 'you\\r'}})");
    second.evaluate(&type_you).await;
    let got = format!(
        "os.bridge.frames.some(({{receive}}) => receive?.pid === {pid} && receive.data === 'hello you\\n')"
    );
    until(&mut second, &got).await;
    assert_eq!(second.evaluate("os.windows[0].text").await, "", "the page draws nothing there");
    desk.shows(0, "hello you").await;
    assert_eq!(command(&mut second, &format!("runtime kill {pid}")).await, [format!("Killed {pid}")]);
    desk.shows(0, "[Process exited").await;
}

#[tokio::test]
async fn point_4_the_page_comes_back_after_a_disconnect_and_after_a_restart() {
    let port = free_port();
    let fixed = || options().env("MHNOS_RUNTIME_PORT", port.to_string());
    let mut desk = Desk::open_with(fixed()).await;
    let pid = desk.start("rshell").await;
    desk.done("runtime disconnect").await;
    desk.until("os.bridge.opened === 2 && os.bridge.isOpen").await;
    assert_eq!(desk.done("runtime list").await, [format!("{pid} shell /bin/bash running")]);
    assert!(desk.server.stop().success());
    desk.until("!os.bridge.isOpen").await;
    desk.server = Server::start(fixed());
    desk.until("os.bridge.opened === 3 && os.bridge.isOpen").await;
    assert!(desk.done("runtime list").await.is_empty());
    assert_eq!(desk.start("rshell").await, 1000);
}

/// A port outside the range from which the kernel picks for others.
fn free_port() -> u16 {
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    (first..32_000)
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

#[tokio::test]
async fn points_27_28_29_files_go_both_ways_and_a_failure_is_shown() {
    let binary: Vec<u8> = (0..=255).collect();
    let placed: [(&str, &[u8]); 2] = [("made-here.bin", &binary), ("other/taken/file", b"")];
    let mut desk = Desk::open_in(options(), &placed).await;
    for (path, content) in [
        ("/project/binary", binary.as_slice()),
        ("/project/empty", b""),
        ("/project/deep/er/naïve 文件 🦀.txt", "grüße".as_bytes()),
        ("/project/node_modules/left-out.js", b"never pushed"),
        ("/project/.hidden", b"never pushed"),
    ] {
        desk.save(path, content).await;
    }
    desk.tab.evaluate("os.files.makeDirectory('/project/nothing')").await;
    assert_eq!(desk.done("runtime push /project").await, ["Pushed 6/6"]);
    let workspace = desk.server.workspace().to_owned();
    assert_eq!(std::fs::read(workspace.join("project/binary")).expect("pushed"), binary);
    assert_eq!(std::fs::read(workspace.join("project/empty")).expect("pushed"), b"");
    assert!(workspace.join("project/nothing").is_dir());
    assert!(!workspace.join("project/node_modules").exists());

    // What the service has comes back byte for byte, into an empty file system.
    desk.tab.evaluate("os.files.clear()").await;
    assert_eq!(desk.done("runtime pull").await, ["Pulled 6/6"]);
    assert_eq!(desk.saved("/project/binary").await, binary);
    assert_eq!(desk.saved("/made-here.bin").await, binary);
    assert_eq!(desk.saved("/project/deep/er/naïve 文件 🦀.txt").await, "grüße".as_bytes());
    assert_eq!(desk.saved("/project/empty").await, b"");

    // A directory stands where a file is to go.
    desk.tab.evaluate("os.files.clear()").await;
    desk.save("/other/taken", b"content").await;
    let lines = desk.done("runtime push /other").await;
    assert!(lines[0].contains("/other/taken") && lines[0].contains("directory"), "{lines:?}");
    assert_eq!(lines[1], "Pushed 0/1");
    desk.is_golden("files").await;
}
