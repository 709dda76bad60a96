//! Every process type, with the program it stands for.

use std::time::Duration;

use mhnos_testing::{Scratch, Server, Wire, WireOptions, eventually_async};
use serde_json::{Value, json};

use crate::{compatibility_packages::one_host_of_each_tier, options, start};

#[tokio::test]
async fn node_runs_a_script_with_arguments_environment_and_directory() {
    let server = start();
    server.write(
        "project/app.mjs",
        "console.log(process.argv.slice(2).join(), process.env.GREETING, process.cwd());\n\
         console.error('to stderr');\nprocess.exitCode = 3;\n",
    );
    let mut wire = Wire::connect(server.address()).await;
    let options = json!({"cwd": "/project", "env": {"GREETING": "hello"}});
    let pid = wire
        .spawn(json!({"processType": "node", "command": "app.mjs", "args": ["--port", "3000"], "options": options}))
        .await;
    let (stdout, stderr, exit) = wire.run_to_exit(pid).await;
    assert_eq!(stdout, format!("--port,3000 hello {}/project\n", server.workspace().display()));
    assert_eq!(stderr, "to stderr\n");
    assert_eq!(
        (&exit["code"], &exit["signal"], &exit["reason"]),
        (&json!(3), &Value::Null, &json!("exited"))
    );
}

#[tokio::test]
async fn python_output_is_visible_as_it_is_printed() {
    let server = start();
    server.write("ask.py", "print('name?')\nname = input()\nprint('hello', name)\n");
    let mut wire = Wire::connect(server.address()).await;
    let pid = wire.spawn(json!({"processType": "python", "command": "/workspace/ask.py"})).await;
    assert_eq!(wire.stdout_until(pid, "name?\n").await, "name?\n");
    wire.send(&json!({"type": "write", "pid": pid, "data": "you\n"})).await;
    let (stdout, _, exit) = wire.run_to_exit(pid).await;
    assert_eq!((stdout.as_str(), &exit["code"]), ("hello you\n", &json!(0)));
}

#[tokio::test]
async fn a_shell_has_a_terminal_with_a_name_a_size_job_control_and_utf8() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let options = json!({"pty": {"cols": 91, "rows": 17}});
    let pid = wire.spawn(json!({"processType": "shell", "options": options})).await;
    let script = "tty; stty size; sleep 100 & jobs; kill %1; locale 2>/dev/null | grep -c UTF-8; echo \"e${EMPTY}nd\"; exit 7\r";
    wire.send(&json!({"type": "write", "pid": pid, "data": script})).await;
    let (stdout, _, exit) = wire.run_to_exit(pid).await;
    assert!(stdout.contains("/dev/pts/"), "{stdout}");
    assert!(stdout.contains("17 91"), "{stdout}");
    assert!(stdout.contains("Running"), "{stdout}");
    assert!(!stdout.contains("no job control"), "{stdout}");
    assert!(stdout.contains("\nend"), "{stdout}");
    assert_eq!(exit["code"], 7);
}

#[tokio::test]
async fn a_shell_honours_its_command_and_arguments() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let pid = wire
        .spawn(json!({"processType": "shell", "command": "/bin/bash", "args": ["-c", "echo $((6 * 7)); exit 5"]}))
        .await;
    let (stdout, _, exit) = wire.run_to_exit(pid).await;
    assert_eq!((stdout.as_str(), &exit["code"]), ("42\r\n", &json!(5)));
}

#[tokio::test]
async fn a_resize_reaches_the_program() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let script = "trap 'stty size; exit' WINCH; echo ready; while :; do read -t 0.05; done";
    let pid =
        wire.spawn(json!({"processType": "shell", "command": "/bin/bash", "args": ["-c", script]})).await;
    wire.stdout_until(pid, "ready").await;
    let answer = wire.request(json!({"type": "resize", "id": 1, "pid": pid, "cols": 132, "rows": 43})).await;
    assert_eq!(answer["type"], "resized", "{answer}");
    assert!(wire.stdout_until(pid, "132").await.contains("43 132"));
}

#[tokio::test]
async fn workerd_serves_a_workers_source_and_says_where() {
    let server = start();
    server.write(
        "worker.js",
        "export default { fetch(request) { return new Response('from ' + new URL(request.url).pathname) } }\n",
    );
    server.write("ask.mjs", "console.log(await (await fetch(process.argv[2])).text());\n");
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let pid = wire.spawn(json!({"processType": "workerd", "command": "/worker.js"})).await;
    let port = wire.next_where(|message| message["type"] == "port" && message["pid"] == pid).await;
    assert_eq!(port["state"], "open", "{port}");
    let url = format!("http://127.0.0.1:{}/here", port["port"]);
    let ask =
        wire.spawn(json!({"id": "ask", "processType": "node", "command": "/ask.mjs", "args": [url]})).await;
    let (stdout, stderr, _) = wire.run_to_exit(ask).await;
    assert_eq!((stdout.as_str(), stderr.as_str()), ("from /here\n", ""));
    assert_eq!(wire.request(json!({"type": "kill", "id": 9, "pid": pid})).await["type"], "killed");
}

#[tokio::test]
async fn workerd_takes_a_configuration_as_it_is() {
    let server = start();
    server.write("w.js", "export default { fetch() { return new Response('configured') } }\n");
    server.write(
        "config.capnp",
        "using Workerd = import \"/workerd/workerd.capnp\";\n\
         const config :Workerd.Config = (\n\
           services = [(name = \"main\", worker = .w)],\n\
           sockets = [(name = \"http\", address = \"127.0.0.1:0\", http = (), service = \"main\")]);\n\
         const w :Workerd.Worker = (modules = [(name = \"w.js\", esModule = embed \"w.js\")], compatibilityDate = \"2026-11-01\");\n",
    );
    server
        .write("ask.py", "import sys, urllib.request as r\nprint(r.urlopen(sys.argv[1]).read().decode())\n");
    let mut wire = Wire::connect_as(server.address(), WireOptions::modern()).await;
    let pid = wire.spawn(json!({"processType": "workerd", "command": "/config.capnp"})).await;
    let port = wire.next_where(|message| message["type"] == "port" && message["pid"] == pid).await;
    let url = format!("http://127.0.0.1:{}/", port["port"]);
    let ask =
        wire.spawn(json!({"id": "ask", "processType": "python", "command": "/ask.py", "args": [url]})).await;
    assert_eq!(wire.run_to_exit(ask).await.0, "configured\n");
}

#[tokio::test]
async fn the_shell_finds_the_same_programs_as_a_spawn() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let node = wire.spawn(json!({"processType": "node", "command": "-p", "args": ["process.version"]})).await;
    let (version, ..) = wire.run_to_exit(node).await;
    let script = "node --version; for p in npm npx python3 workerd; do command -v $p >/dev/null || echo missing $p; done; npm --version";
    let shell = wire
        .spawn(json!({"id": 2, "processType": "shell", "command": "bash", "args": ["-c", script], "options": {"pty": false}}))
        .await;
    let (stdout, stderr, _) = wire.run_to_exit(shell).await;
    assert!(stdout.contains(version.trim()), "{version} {stdout} {stderr}");
    assert!(!stdout.contains("missing"), "{stdout} {stderr}");
}

#[tokio::test]
async fn openclaw_is_refused_where_it_is_not_allowed() {
    let server = start();
    let mut wire = Wire::connect(server.address()).await;
    let answer = wire
        .request(json!({"type": "spawn", "id": 1, "processType": "openclaw", "command": "gateway"}))
        .await;
    assert_eq!(answer["type"], "error", "{answer}");
    assert!(answer["error"].as_str().is_some_and(|text| text.contains("OpenClaw")), "{answer}");
}

/// As root and by users, with a network of their own, and as in a container: no UDP, and few ports.
#[tokio::test]
async fn openclaws_gateway_starts_without_questions_and_answers_in_every_tier() {
    openclaws_gateway("by default", options()).await;
    for host in one_host_of_each_tier() {
        openclaws_gateway(host, options().on(host)).await;
    }
}

/// One at a time: its port may be the host's.
async fn openclaws_gateway(host: &str, options: mhnos_testing::Options) {
    let server = mhnos_testing::Server::start(
        options.env("MHNOS_ALLOW_OPENCLAW", "true").env("MHNOS_MAX_MEMORY", "3g"),
    );
    server.write(
        "health.mjs",
        "for (;;) {\n  try { console.log(await (await fetch('http://127.0.0.1:18789/health')).text()); break; }\n  \
         catch { await new Promise((again) => setTimeout(again, 100)); }\n}\n",
    );
    let mut wire = Wire::connect(server.address()).await;
    let gateway = wire.spawn(json!({"processType": "openclaw", "command": "gateway"})).await;
    let mut viewer = Wire::connect_as(server.address(), WireOptions::modern()).await;
    viewer.request(json!({"type": "attach", "id": 1, "pid": gateway})).await;
    let options = json!({"timeout": 90_000});
    let health = wire
        .spawn(json!({"id": 2, "processType": "node", "command": "/health.mjs", "options": options}))
        .await;
    let (stdout, stderr, exit) = wire.run_to_exit(health).await;
    if !stdout.contains("\"ok\":true") {
        wire.request(json!({"type": "kill", "id": 3, "pid": gateway})).await;
        let gateway = wire.run_to_exit(gateway).await;
        panic!("{host}: {stdout} {stderr} {exit}\n{gateway:?}\n{}", server.log());
    }
    println!("{host}: answers after {} ms", exit["runtime"]);
    assert!(server.workspace().join(".openclaw").is_dir(), "its state is in the workspace");
    let port = viewer.next_where(|message| message["type"] == "port" && message["port"] == 18789).await;
    assert_eq!((&port["pid"], &port["state"]), (&json!(gateway), &json!("open")), "{port}");
    let killed = wire.request(json!({"type": "kill", "id": 3, "pid": gateway})).await;
    assert_eq!(killed["type"], "killed", "{killed}");
    let (.., exit) = wire.run_to_exit(gateway).await;
    assert!(
        exit["runtime"].as_u64().is_some_and(|ms| ms < Duration::from_mins(2).as_millis() as u64),
        "{exit}"
    );
}

#[tokio::test]
async fn openclaws_other_commands_pass_through() {
    let server = mhnos_testing::Server::start(options().env("MHNOS_ALLOW_OPENCLAW", "true"));
    let mut wire = Wire::connect(server.address()).await;
    let pid = wire.spawn(json!({"processType": "openclaw", "command": "--version"})).await;
    let (stdout, stderr, _) = wire.run_to_exit(pid).await;
    assert!(stdout.contains("OpenClaw 20"), "{stdout} {stderr}");
}

/// A checkout below `/root`: the account that programs run as cannot walk there, and neither can the bridge.
#[tokio::test]
async fn programs_in_a_directory_that_only_the_service_can_reach_are_found() {
    use std::os::unix::fs::PermissionsExt;
    let private = Scratch::new();
    let bin = private.path().join("tools/bin");
    std::fs::create_dir_all(&bin).expect("make");
    let node = bin.join("node");
    std::fs::write(&node, "#!/bin/sh\necho v99.1.2\n").expect("write");
    std::fs::set_permissions(&node, PermissionsExt::from_mode(0o755)).expect("chmod");
    std::fs::set_permissions(private.path(), PermissionsExt::from_mode(0o700)).expect("chmod");

    let server = Server::start(options().env("MHNOS_PATH", format!("{}:/usr/bin:/bin", bin.display())));
    let mut wire = Wire::connect(server.address()).await;
    let pid = wire.spawn(json!({"processType": "node", "command": "-v"})).await;
    assert_eq!(wire.run_to_exit(pid).await.0, "v99.1.2\n");
}

fn write_node(directory: &Scratch, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    let node = directory.path().join("node.new");
    std::fs::write(&node, script).expect("write");
    std::fs::set_permissions(&node, PermissionsExt::from_mode(0o755)).expect("chmod");
    std::fs::rename(&node, directory.path().join("node")).expect("rename");
}

fn start_with_programs_of(directory: &Scratch) -> Server {
    Server::start(options().env("MHNOS_PATH", directory.path().display().to_string()))
}

/// Asks again and again until an answer will do.
async fn asked_until(wire: &mut Wire, message: Value, what: &str, will_do: impl Fn(&Value) -> bool) -> Value {
    let ask = async || Some(wire.request(message.clone()).await).filter(|answer| will_do(answer));
    eventually_async(Duration::from_mins(2), what, ask).await
}

/// As on a disk so slow that the first question ran into its deadline.
#[tokio::test]
async fn a_program_that_gave_no_answer_is_asked_again() {
    let directory = Scratch::new();
    write_node(&directory, "#!/bin/sh\nkill -KILL $$\n");
    let server = start_with_programs_of(&directory);
    let mut wire = Wire::connect(server.address()).await;
    let status = json!({"type": "status", "id": 1});
    let problem_is = |answer: &Value, text: &str| {
        let node = answer["tools"].as_array().into_iter().flatten().find(|tool| tool["type"] == "node");
        node.is_some_and(|node| node["problem"].as_str().unwrap_or_default().contains(text))
    };
    asked_until(&mut wire, status.clone(), "no answer", |now| problem_is(now, "it is asked again")).await;
    write_node(&directory, "#!/bin/sh\necho v99.1.2\n");
    asked_until(&mut wire, status, "an answer", |now| !problem_is(now, "it")).await;
    let pid = wire.spawn(json!({"processType": "node", "command": "-v"})).await;
    assert_eq!(wire.run_to_exit(pid).await.0, "v99.1.2\n");
}

#[tokio::test]
async fn a_program_installed_after_the_start_is_found_once_it_was_missed() {
    let directory = Scratch::new();
    let server = start_with_programs_of(&directory);
    let mut wire = Wire::connect(server.address()).await;
    let spawn = json!({"type": "spawn", "id": 1, "processType": "node", "command": "-v"});
    let refusal = wire.request(spawn.clone()).await;
    assert_eq!(refusal["code"], "PROGRAM_NOT_FOUND", "{refusal}");
    write_node(&directory, "#!/bin/sh\necho v99.1.2\n");
    let spawned = asked_until(&mut wire, spawn, "a spawn", |answer| answer["type"] == "spawned").await;
    let pid = spawned["pid"].as_u64().expect("a pid");
    assert_eq!(wire.run_to_exit(pid).await.0, "v99.1.2\n");
}

/// Each of V8's isolates reserves half a gigabyte that it never touches: the memory limit must not count it.
#[tokio::test]
async fn a_dozen_workers_start_within_the_default_memory_limit() {
    let server = start();
    let script = "const { Worker } = require('worker_threads'); let left = 12;\
        for (let i = 0; i < 12; i++) new Worker('require(\"worker_threads\").parentPort.once(\"message\", () => {})', { eval: true })\
          .on('online', function () { if (--left === 0) { console.log('all'); process.exit(); } });";
    let mut wire = Wire::connect(server.address()).await;
    let pid = wire.spawn(json!({"processType": "node", "command": "-e", "args": [script]})).await;
    let (stdout, stderr, exit) = wire.run_to_exit(pid).await;
    assert_eq!((stdout.as_str(), &exit["code"]), ("all\n", &json!(0)), "{stderr} {exit}");
}
