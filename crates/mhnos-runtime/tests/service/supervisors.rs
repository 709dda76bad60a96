//! Programs against what supervises them: their supervisor and the sandbox's init, which are of the programs' user.

use std::{
    os::unix::process::CommandExt,
    process::{Child, Command},
    time::Duration,
};

use mhnos_sandbox::Tier;
use mhnos_testing::{Server, Wire, alive, eventually, host::Host, host::USER, waive};
use rustix::process::{Pid, Signal, geteuid, getpgid, kill_process};
use serde_json::{Value, json};

use crate::{abuse::strict_hosts, options};

/// What supervises a program is of the program's user: what it tries to be rid of it, and what came of that.
const AGAINST_SUPERVISOR: &str = "
import errno, os, resource, signal, time
def attempt(name, action):
    try: action(); print(name, 'ok')
    except OSError as error: print(name, errno.errorcode[error.errno])
supervisor = os.getppid()
attempt('limits', lambda: resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (0, 0)))
attempt('priority', lambda: os.setpriority(os.PRIO_PROCESS, supervisor, 19))
attempt('scheduler', lambda: os.sched_setscheduler(supervisor, os.SCHED_IDLE, os.sched_param(0)))
attempt('processors', lambda: os.sched_setaffinity(supervisor, os.sched_getaffinity(0)))
for name in ['mem', 'fd/0', 'environ']: attempt('its-' + name, lambda: os.close(os.open(f'/proc/{supervisor}/{name}', os.O_RDONLY)))
attempt('its-root', lambda: os.stat(f'/proc/{supervisor}/root/'))
for name in ['mem', 'fd/0', 'environ']: attempt('own-' + name, lambda: os.close(os.open(f'/proc/self/{name}', os.O_RDONLY)))
attempt('own-root', lambda: os.stat('/proc/self/root/'))
attempt('own', lambda: resource.prlimit(0, resource.RLIMIT_NOFILE, (64, 64)))
# Once it has been stopped there may be no time to say so.
print('stops it', flush=True)
try: os.kill(supervisor, signal.SIGSTOP)
except OSError: print('refused', flush=True)
time.sleep(1000)
";

/// For a tree to be gone once its end has been told, on a machine with much else to do.
const ENDS: Duration = Duration::from_secs(20);

/// What of the supervisor a program opens, and of itself.
const OF_A_PROCESS: [&str; 4] = ["mem", "fd/0", "environ", "root"];

/// Runs this program to its end, and kills it when it says that nothing came of what it tried. The service serves the next
/// one and leaves nothing.
async fn run(server: &mut Server, host: &str, arguments: &[&str]) -> (String, Value) {
    let mut wire = Wire::connect(server.address()).await;
    let pid = wire.spawn(json!({"processType": "python", "command": "-c", "args": arguments})).await;
    let (mut said, mut told) = (String::new(), false);
    let exit = loop {
        let message = wire.next_where(|message| message["pid"] == pid && message["id"].is_null()).await;
        if message["type"] == "exit" {
            break message;
        }
        said += message["data"].as_str().unwrap_or_default();
        if said.ends_with("refused\n") && !std::mem::replace(&mut told, true) {
            wire.send(&json!({"type": "kill", "pid": pid, "signal": 9})).await;
        }
    };
    let next = wire.spawn(json!({"processType": "shell", "command": "bash", "args": ["-c", "exit 3"]})).await;
    assert_eq!(wire.run_to_exit(next).await.2["code"], 3, "{host}");
    server.stop();
    server.assert_nothing_left();
    (said, exit)
}

/// Killed from outside, as a machine without memory does: the keeper cannot ask it any more what belonged to it.
#[tokio::test]
async fn a_supervisor_that_is_killed_takes_its_tree_along_in_any_tier() {
    for host in strict_hosts() {
        let mut server = Server::start(options().on(host));
        let mut wire = Wire::connect(server.address()).await;
        let script = "(setsid sleep 1000 &); sleep 1000 & echo $PPID; wait";
        let pid =
            wire.spawn(json!({"processType": "shell", "command": "bash", "args": ["-c", script]})).await;
        wire.stdout_until(pid, "\n").await;
        let tree: Vec<_> =
            server.descendants().into_iter().filter(|one| one.command.contains("sleep 1000")).collect();
        let program = tree.iter().find(|one| one.command.starts_with("bash")).expect("the program");
        kill_process(Pid::from_raw(program.parent).expect("a pid"), Signal::KILL).expect("its supervisor");
        let exit = wire.next_where(|message| message["type"] == "exit").await;
        assert_eq!((&exit["pid"], &exit["reason"]), (&json!(pid), &json!("lost")), "{host}: {exit}");
        eventually(ENDS, "its tree is gone", || alive(&tree).is_empty().then_some(()));
        let next =
            wire.spawn(json!({"processType": "shell", "command": "bash", "args": ["-c", "exit 3"]})).await;
        assert_eq!(wire.run_to_exit(next).await.2["code"], 3, "{host}");
        server.stop();
        server.assert_nothing_left();
    }
}

async fn against_supervisor(server: &mut Server, host: &str) -> String {
    let (said, exit) = run(server, host, &[AGAINST_SUPERVISOR]).await;
    // Without its supervisor it ends at once, before anybody asks for it.
    let expected = if said.ends_with("refused\n") { "killed" } else { "lost" };
    assert_eq!(exit["reason"], expected, "{host}: {exit}\n{said}");
    said
}

#[tokio::test]
async fn a_program_cannot_weaken_its_supervisor_and_ends_with_one_that_it_stops() {
    for host in strict_hosts() {
        let said = against_supervisor(&mut Server::start(options().on(host)), host).await;
        for what in ["limits EPERM", "priority EPERM", "scheduler EPERM", "processors EPERM", "own ok"] {
            assert!(said.contains(what), "{host}: {what}: {said}");
        }
        for what in OF_A_PROCESS {
            let refused = |error: &&str| said.contains(&format!("its-{what} {error}\n"));
            assert!(["EACCES", "EPERM", "ENOENT"].iter().any(refused), "{host}: {what}: {said}");
            assert!(said.contains(&format!("own-{what} ok\n")), "{host}: {what}: {said}");
        }
    }
}

/// The control.
#[tokio::test]
async fn without_walls_a_program_can_weaken_its_supervisor() {
    let options = options().on("none").env("MHNOS_SANDBOX", "none");
    let said = against_supervisor(&mut Server::start(options), "none").await;
    for what in ["priority ok", "scheduler ok", "processors ok", "stops it"] {
        assert!(said.contains(what), "{what}: {said}");
    }
    assert!(!said.contains("refused"), "{said}");
}

/// Kills all it may, if the process of this number, which is of its user and none of its sandbox's, is not among them. One of
/// its own is: in a session of its own.
const AGAINST_ALL: &str = "
import os, signal, subprocess, sys
try: os.kill(int(sys.argv[1]), 0)
except OSError: pass
else: sys.exit('others are within reach')
child = subprocess.Popen(['sleep', '1000'], start_new_session=True)
os.kill(-1, signal.SIGKILL)
print('own', signal.Signals(-child.wait()).name, flush=True)
sys.exit(5)
";

/// A process of the tests' user and of no sandbox.
struct Stranger(Child);

impl Stranger {
    fn start() -> Self {
        let mut command = Command::new("sleep");
        if geteuid().is_root() {
            command.uid(USER).gid(USER);
        }
        Self(command.arg("1000").spawn().expect("sleep"))
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A signal to everybody: those that a program reaches are its own.
#[tokio::test]
async fn a_signal_to_all_there_are_ends_a_programs_own_and_nobody_else() {
    for host in strict_hosts() {
        if Host::named(host).landlock.is_some() {
            waive(host, "before Linux 6.12 programs signal all of their user (docs/threat-model.md)");
            continue;
        }
        let mut stranger = Stranger::start();
        let mut server = Server::start(options().on(host));
        let mut wire = Wire::connect(server.address()).await;
        let mut neighbours = Vec::new();
        // With control groups programs of one sandbox may signal each other.
        let isolations: &[&str] =
            if Host::named(host).grouped { &["private"] } else { &["private", "shared"] };
        for isolation in isolations {
            let options = json!({"pty": false, "isolation": isolation});
            let spawn = json!({"processType": "shell", "command": "bash", "args": ["-c", "echo up; read x; exit 7"],
                               "options": options});
            let pid = wire.spawn(spawn).await;
            wire.stdout_until(pid, "up").await;
            neighbours.push(pid);
        }
        let arguments = [AGAINST_ALL.to_owned(), stranger.0.id().to_string()];
        let pid = wire.spawn(json!({"processType": "python", "command": "-c", "args": arguments})).await;
        let (stdout, stderr, exit) = wire.run_to_exit(pid).await;
        let ended = (stdout.trim(), exit["reason"].as_str().unwrap_or_default(), exit["code"].as_i64());
        if matches!(Host::named(host).tier, Tier::T1 | Tier::T2) {
            // Its own supervisor is among those it reaches there, and it ends with that one.
            assert_eq!((ended.1, ended.2), ("lost", None), "{host}: {exit}\n{stdout}\n{stderr}");
        } else {
            assert_eq!(ended, ("own SIGKILL", "exited", Some(5)), "{host}: {exit}\n{stdout}\n{stderr}");
        }
        for pid in neighbours {
            wire.send(&json!({"type": "write", "pid": pid, "data": "x\n"})).await;
            assert_eq!(wire.run_to_exit(pid).await.2["code"], 7, "{host}");
        }
        assert!(stranger.0.try_wait().expect("ours").is_none(), "{host}");
        let next =
            wire.spawn(json!({"processType": "shell", "command": "bash", "args": ["-c", "exit 3"]})).await;
        assert_eq!(wire.run_to_exit(next).await.2["code"], 3, "{host}");
        server.stop();
        server.assert_nothing_left();
    }
}

/// Stops init, after all its supervisors if it is told to, and says if that is refused or without effect. Nobody else: other
/// tests have programs of the same user.
const AGAINST_INIT: &str = "
import os, signal, sys, time
def parent(pid): return int(open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()[1])
def children(pid): return [int(child) for child in open(f'/proc/{pid}/task/{pid}/children').read().split()]
tree, whom = sys.argv[1:]
init = 1 if tree == 'own-tree' else parent(os.getppid())
supervisors = [os.getppid()] if tree == 'own-tree' else children(init)
try:
    for pid in (supervisors if whom == 'all' else []) + [init]: os.kill(pid, signal.SIGSTOP)
    # To the first process of a namespace this means nothing, from inside.
    if tree == 'own-tree': os.kill(init, signal.SIGCONT); print('refused', flush=True)
except OSError: print('refused', flush=True)
time.sleep(1000)
";

#[tokio::test]
async fn a_program_that_can_stop_init_ends_its_sandbox_and_no_other() {
    for host in strict_hosts() {
        let own_tree = matches!(Host::named(host).tier, Tier::T1 | Tier::T2);
        let tree = if own_tree { "own-tree" } else { "hosts-tree" };
        let mut server = Server::start(options().on(host));
        let (said, exit) = run(&mut server, host, &[AGAINST_INIT, tree, "init"]).await;
        // The control: there it is not refused.
        let expected =
            if Host::named(host).landlock.is_some() { ("", "lost") } else { ("refused\n", "killed") };
        assert_eq!((&*said, exit["reason"].as_str().unwrap_or_default()), expected, "{host}: {exit}");
        // All supervisors too: killed, if nobody killed it before.
        let mut server = Server::start(options().on(host));
        let (_, exit) = run(&mut server, host, &[AGAINST_INIT, tree, "all"]).await;
        assert!(["lost", "killed"].map(Value::from).contains(&exit["reason"]), "{host}: {exit}");
    }
}

/// A terminal's keys are for all processes of a group. An init would take a supervisor that Ctrl-Z has stopped for one that its
/// program has, and end all there is.
#[tokio::test]
async fn keys_of_the_services_terminal_reach_the_keeper_alone() {
    for host in strict_hosts().chain(["none"]) {
        let mode = if host == "none" { "none" } else { "strict" };
        let server = Server::start(options().on(host).env("MHNOS_SANDBOX", mode));
        let mut wire = Wire::connect(server.address()).await;
        let script = "echo up; read x; exit 3";
        let options = json!({"pty": false});
        let spawn =
            json!({"processType": "shell", "command": "bash", "args": ["-c", script], "options": options});
        let pid = wire.spawn(spawn).await;
        wire.stdout_until(pid, "up").await;
        let group = |os_pid| getpgid(Pid::from_raw(os_pid)).ok();
        let keepers = group(server.os_pid());
        let all = server.descendants();
        let others: Vec<_> = all.iter().filter(|process| group(process.os_pid) == keepers).collect();
        assert!(all.len() > 3 && keepers.is_some() && others.is_empty(), "{host}: {others:?} of {all:?}");
        // As Ctrl-Z and fg do.
        server.signal(Signal::TSTP);
        server.signal(Signal::CONT);
        wire.send(&json!({"type": "write", "pid": pid, "data": "x\n"})).await;
        assert_eq!(wire.run_to_exit(pid).await.2["code"], 3, "{host}");
    }
}
