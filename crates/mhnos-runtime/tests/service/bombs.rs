//! Programs that pass their limits of memory and processes, and what the client is told of their end.

use mhnos_testing::{Server, Wire, host::Host};
use serde_json::{Value, json};

use crate::{
    abuse::strict_hosts,
    options,
    requests::{assert_serves, bash, node, python, with_options},
};

const MIB: u64 = 1 << 20;

/// Objects of JavaScript's own, until there is no room for more.
const HEAP_BOMB: &str =
    "const kept = []; for (;;) kept.push({ text: 'x'.repeat(10) + kept.length, list: [kept.length] });";

/// V8 gives up before the limit does: the program's last words say what was short and where. (Its limit of the heap is an
/// argument of the types node and openclaw; with control groups and without.)
#[tokio::test]
async fn a_javascript_heap_ends_with_nodes_own_words_before_the_limit_kills() {
    for host in strict_hosts() {
        let server = Server::start(options().on(host));
        let mut wire = Wire::connect(server.address()).await;
        // Large heaps take long to fill, so not on every kind.
        let limits: &[u64] = if ["root", "user"].contains(&host) { &[128, 256, 512, 1024] } else { &[256] };
        for memory in limits.iter().map(|mib| mib * MIB) {
            let spawn = with_options(node(HEAP_BOMB), json!({"limits": {"memory": memory}}));
            let pid = wire.spawn(spawn).await;
            let (_, stderr, exit) = wire.run_to_exit(pid).await;
            assert!(stderr.contains("JavaScript heap out of memory"), "{host}: {memory}: {exit}\n{stderr}");
            let end = (&exit["reason"], &exit["signal"]);
            assert_eq!(end, (&json!("signaled"), &json!("SIGABRT")), "{host}: {memory}: {exit}");
        }
        assert_serves(&mut wire).await;
    }
}

/// Forks until it is refused, and ends then; where nothing refuses it, it is ended.
const FORK_BOMB: &str = "
import os, sys, time
for _ in range(60):
    try:
        if os.fork() == 0: time.sleep(1000)
    except OSError: sys.exit(9)
time.sleep(1000)
";

#[tokio::test]
async fn too_many_processes_are_told_as_the_reason_of_the_end() {
    for host in strict_hosts() {
        let server = Server::start(options().on(host));
        let mut wire = Wire::connect(server.address()).await;
        let bomb = |pids: u64| with_options(python(FORK_BOMB), json!({"limits": {"pids": pids}}));
        let pid = wire.spawn(bomb(20)).await;
        let (.., exit) = wire.run_to_exit(pid).await;
        // A control group refuses the next fork, and the program ends itself; else the watchdog ends it.
        let ended = if Host::named(host).grouped {
            (json!("pids"), json!(9), Value::Null)
        } else {
            (json!("pids"), Value::Null, json!("SIGKILL"))
        };
        let told = (exit["reason"].clone(), exit["code"].clone(), exit["signal"].clone());
        assert_eq!(told, ended, "{host}: {exit}");
        // The control: with room it goes on, until somebody ends it.
        let pid = wire.spawn(with_options(bomb(200), json!({"timeout": 3000}))).await;
        let (.., exit) = wire.run_to_exit(pid).await;
        assert_eq!(exit["reason"], "timeout", "{host}: {exit}");
        assert_serves(&mut wire).await;
    }
}

/// Of the type workerd: module scope runs when it starts. Of the type openclaw: it is a program of Node.js, which loads
/// this before its own.
const WORKER_BOMB: &str = "const kept = []; for (;;) kept.push(new Uint8Array(1 << 20).fill(1));\n\
                           export default { fetch() { return new Response('never') } }\n";
const NODE_BOMB: &str = "const kept = []; for (;;) kept.push(Buffer.alloc(1 << 20, 1));\n";

/// All five types, each with what it can allocate: the limit is that of the setting, not what a program asks of its own.
#[tokio::test]
async fn memory_beyond_the_setting_ends_programs_of_all_five_types_with_and_without_control_groups() {
    for host in strict_hosts() {
        let limit = 384 * MIB;
        let settings =
            options().env("MHNOS_MAX_MEMORY", limit.to_string()).env("MHNOS_ALLOW_OPENCLAW", "true");
        let server = Server::start(settings.on(host));
        server.write("bomb.cjs", NODE_BOMB);
        server.write("bomb.js", WORKER_BOMB);
        let preload = format!("--require={}/bomb.cjs", server.workspace().display());
        let bombs = [
            ("node", node(NODE_BOMB)),
            ("python", python("kept = []\nwhile True: kept.append(b'x' * (1 << 20))")),
            // Without memory of its own to spend: what it starts counts as well.
            (
                "shell",
                bash(
                    "a=$(head -c 100000000 /dev/zero | tr '\\0' x); b=$a; c=$a; d=$a; e=$a; f=$a; sleep 1000",
                ),
            ),
            ("workerd", json!({"processType": "workerd", "command": "bomb.js"})),
            (
                "openclaw",
                json!({"processType": "openclaw", "command": "--version",
                                "options": {"pty": false, "env": {"NODE_OPTIONS": preload}}}),
            ),
        ];
        let mut wire = Wire::connect(server.address()).await;
        for (name, bomb) in bombs {
            let pid = wire.spawn(bomb).await;
            let (stdout, stderr, exit) = wire.run_to_exit(pid).await;
            let told = (&exit["reason"], &exit["signal"]);
            assert_eq!(
                told,
                (&json!("memory"), &json!("SIGKILL")),
                "{host}: {name}: {exit}\n{stdout}\n{stderr}"
            );
            let used = exit["usage"]["maxRssBytes"].as_u64();
            println!("{host}: {name}: ended for memory, {used:?} bytes at most");
        }
        assert_serves(&mut wire).await;
    }
}
