//! What a program reaches, tier by tier: the host, the service, its neighbours, itself.

use std::{collections::HashSet, time::Duration};

use rustix::process::{Pid, Signal, kill_process};

use mhnos_testing::{Probe, Server, Wire, alive, host::Host, waive};
use serde_json::{Value, json};

use crate::{SERVICE, abuse::strict_hosts, options, start};

/// For another bridge to serve.
const DEADLINE: Duration = Duration::from_secs(20);

/// The service on this kind of host, and what the probe reports there.
async fn probe(host: &str, mode: &str, attempts: impl Fn(&Server) -> Vec<String>) -> (Server, Probe) {
    let server = Server::start(options().env("MHNOS_SANDBOX", mode).on(host));
    Probe::install(&server, SERVICE);
    let mut arguments = vec!["-c".to_owned(), "exec ./mhnos-probe \"$@\"".to_owned(), "probe".to_owned()];
    arguments.extend(attempts(&server));
    let mut wire = Wire::connect(server.address()).await;
    let pid = wire
        .spawn(
            json!({"processType": "shell", "command": "bash", "args": arguments, "options": {"pty": false}}),
        )
        .await;
    let (stdout, stderr, exit) = wire.run_to_exit(pid).await;
    assert_eq!(exit["code"], 0, "{host}: {stdout}\n{stderr}");
    (server, Probe::parse(&stdout))
}

fn bridge_of(server: &Server) -> i32 {
    let all = server.descendants();
    let bridge = all.iter().find(|process| process.command.contains("mhnos-runtime bridge"));
    bridge.expect("a bridge").os_pid
}

/// What the kernel does with a process is written there.
const TUNED: [&str; 3] = ["oom_score_adj", "comm", "timerslack_ns"];

#[tokio::test]
async fn a_program_cannot_touch_the_service_in_any_tier() {
    for host in strict_hosts() {
        let (server, report) = probe(host, "strict", |server| {
            let mut attempts = Vec::new();
            for pid in [server.os_pid(), bridge_of(server)] {
                for verb in ["kill", "prlimit"] {
                    attempts.push(format!("{verb}={pid}"));
                }
                for file in ["environ", "mem", "maps", "root/etc/hostname"] {
                    attempts.push(format!("read=/proc/{pid}/{file}"));
                }
                attempts.push(format!("list=/proc/{pid}/cwd"));
                for file in TUNED {
                    attempts.push(format!("append=/proc/{pid}/{file}"));
                }
            }
            attempts
        })
        .await;
        for pid in [server.os_pid(), bridge_of(&server)] {
            for verb in ["kill", "prlimit"] {
                report.assert_denied(&format!("{verb}={pid}"), &["ESRCH", "EPERM"]);
            }
            for file in ["environ", "mem", "maps", "root/etc/hostname"] {
                report.assert_denied(&format!("read=/proc/{pid}/{file}"), &["ENOENT", "EACCES", "EPERM"]);
            }
            report.assert_denied(&format!("list=/proc/{pid}/cwd"), &["ENOENT", "EACCES", "EPERM"]);
            for file in TUNED {
                report.assert_denied(
                    &format!("append=/proc/{pid}/{file}"),
                    &["ENOENT", "EACCES", "EPERM", "EROFS"],
                );
            }
        }
    }
}

/// The control of the test above.
#[tokio::test]
async fn without_walls_a_program_can_touch_the_service() {
    let (server, report) = probe("none", "none", |server| {
        let pid = server.os_pid();
        let of = |verb: &str| format!("{verb}={pid}");
        let file = |verb: &str, file: &str| format!("{verb}=/proc/{pid}/{file}");
        let own = ["append=/proc/self/comm", "append=/proc/self/oom_score_adj", "list=/proc/self/cwd"];
        let mut attempts =
            vec![of("kill"), of("prlimit"), file("append", "comm"), file("append", "timerslack_ns")];
        attempts.extend(own.map(str::to_owned));
        attempts
    })
    .await;
    for verb in ["kill", "prlimit"] {
        report.assert_ok(&format!("{verb}={}", server.os_pid()));
    }
    for own in ["append=/proc/self/comm", "append=/proc/self/oom_score_adj", "list=/proc/self/cwd"] {
        report.assert_ok(own);
    }
    report.assert_ok(&format!("append=/proc/{}/timerslack_ns", server.os_pid()));
    // A process that holds secrets belongs to root there, with or without walls.
    report.assert_denied(&format!("append=/proc/{}/comm", server.os_pid()), &["EACCES"]);
}

#[tokio::test]
async fn a_program_reaches_its_workspace_and_no_other_file_of_the_host() {
    let secret = mhnos_testing::Scratch::new();
    let file = secret.path().join("secret");
    std::fs::write(&file, "not for programs").expect("write");
    // Below a directory that no rule of any tier allows.
    let elsewhere = format!("/var/tmp/mhnos-secret-{}", std::process::id());
    std::fs::write(&elsewhere, "not for programs").expect("write");
    for host in strict_hosts() {
        let (_server, report) = probe(host, "strict", |_| {
            vec![
                format!("read={elsewhere}"),
                format!("symlink-read={elsewhere}"),
                "write=/usr/mhnos-probe".into(),
                "write=/etc/mhnos-probe".into(),
                "write=/var/tmp/../../mhnos-probe".into(),
                "mknod=null-device".into(),
                "write=new-file".into(),
                "write=/tmp/mhnos-probe-file".into(),
                "write=/dev/shm/mhnos-probe-file".into(),
                "read=/etc/passwd".into(),
                "read=/dev/urandom".into(),
                "execute=/bin/true".into(),
                "raise-nofile".into(),
                "setuid=0".into(),
                "facts".into(),
            ]
        })
        .await;
        let none = ["ENOENT", "EACCES", "EPERM", "EROFS"];
        report.assert_denied(&format!("read={elsewhere}"), &none);
        report.assert_denied(&format!("symlink-read={elsewhere}"), &none);
        for denied in ["write=/usr/mhnos-probe", "write=/etc/mhnos-probe", "write=/var/tmp/../../mhnos-probe"]
        {
            report.assert_denied(denied, &none);
        }
        for denied in ["mknod=null-device", "raise-nofile", "setuid=0"] {
            // No such user in the sandbox's own user namespace: EINVAL.
            report.assert_denied(denied, &["EPERM", "EACCES", "EINVAL"]);
        }
        for allowed in [
            "write=new-file",
            "write=/tmp/mhnos-probe-file",
            "write=/dev/shm/mhnos-probe-file",
            "read=/etc/passwd",
            "read=/dev/urandom",
            "execute=/bin/true",
        ] {
            report.assert_ok(allowed);
        }
        let status = report.value("status");
        for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            assert_eq!(status[set], "0000000000000000", "{host}: {status}");
        }
        assert_eq!(
            (&status["NoNewPrivs"], &status["Seccomp"]),
            (&json!("1"), &json!("2")),
            "{host}: {status}"
        );
        assert_ne!(report.value("identity")["uid"], 0, "{host}");
        let beyond = report.value("fds").as_object().expect("descriptors").len();
        assert_eq!(beyond, 3, "{host}: {}", report.value("fds"));
    }
    std::fs::remove_file(&elsewhere).expect("remove");
}

/// The control of the two above: the same attempts by root, outside, where nothing forbids them.
#[test]
fn outside_the_same_attempts_succeed_for_root() {
    assert!(rustix::process::geteuid().is_root(), "only root gets past the kernel's own permission checks");
    let server = start();
    let place = mhnos_testing::Scratch::new();
    let elsewhere = place.path().join("secret");
    std::fs::write(&elsewhere, "for root").expect("write");
    let mut attempts = vec![
        format!("read={}", elsewhere.display()),
        format!("symlink-read={}", elsewhere.display()),
        // Of other names than inside, where a file that is there is refused as such.
        "write=/usr/mhnos-control".into(),
        "write=/etc/mhnos-control".into(),
        "write=/var/tmp/../../mhnos-control".into(),
        "mknod=null-device".into(),
    ];
    let mut memory = Vec::new();
    for pid in [server.os_pid(), bridge_of(&server)] {
        attempts.push(format!("kill={pid}"));
        let files = ["environ", "maps", "root/etc/hostname"];
        attempts.extend(files.map(|file| format!("read=/proc/{pid}/{file}")));
        attempts.push(format!("list=/proc/{pid}/cwd"));
        attempts.extend(TUNED.map(|file| format!("append=/proc/{pid}/{file}")));
        memory.push(format!("read=/proc/{pid}/mem"));
    }
    let held = rustix::thread::capabilities(None).expect("capabilities").effective;
    if held.contains(rustix::thread::CapabilitySet::SYS_RESOURCE) {
        attempts.push("raise-nofile".into());
        attempts.push(format!("prlimit={}", server.os_pid()));
    } else {
        waive("raise-nofile, prlimit", "this root lacks CAP_SYS_RESOURCE");
    }
    attempts.push("setuid=0".into());
    let output = std::process::Command::new(Probe::program(SERVICE))
        .args(attempts.iter().chain(&memory))
        .current_dir(place.path())
        .output()
        .expect("the probe");
    assert!(output.status.success(), "{output:?}");
    let report = Probe::parse(&String::from_utf8_lossy(&output.stdout));
    for attempt in &attempts {
        report.assert_ok(attempt);
    }
    for attempt in &memory {
        // It is opened; nothing is at address 0.
        report.assert_denied(attempt, &["EIO"]);
    }
}

#[tokio::test]
async fn what_is_in_force_is_told_and_is_what_the_host_gives() {
    for host in strict_hosts() {
        let server = Server::start(options().on(host));
        let health: serde_json::Value = serde_json::from_str(&server.get("/health").body).expect("JSON");
        assert_eq!(health["sandbox"]["tier"], Host::named(host).tier.as_str(), "{health}");
        assert_eq!(health["sandbox"]["mode"], "strict");
    }
}

#[tokio::test]
async fn without_a_network_of_its_own_a_program_does_not_reach_the_services_port() {
    for host in ["container", "one-user"] {
        let (server, report) = probe(host, "strict", |server| {
            vec![format!("connect={}", server.address()), "listen=127.0.0.1:0".into(), "socket=udp".into()]
        })
        .await;
        report.assert_denied(&format!("connect={}", server.address()), &["EACCES"]);
        report.assert_ok("listen=127.0.0.1:0");
        report.assert_denied("socket=udp", &["EAFNOSUPPORT"]);
        // The control: relaxed shares the host's network.
        let (server, report) =
            probe(host, "relaxed", |server| vec![format!("connect={}", server.address())]).await;
        report.assert_ok(&format!("connect={}", server.address()));
    }
}

#[test]
fn a_floor_above_what_the_host_gives_stops_the_start_and_names_the_remedy() {
    let failure = Server::try_start(options().on("one-user").env("MHNOS_SANDBOX_MIN_TIER", "T2"))
        .expect_err("must not start");
    for expected in ["T1: create the sandbox's namespaces", "T2: ", "kernel.unprivileged_userns_clone=1"] {
        assert!(failure.stderr.contains(expected), "{expected}: {}", failure.stderr);
    }
    // The control.
    drop(start());
}

/// The control of all that look for what a service has left: that they would see it.
#[tokio::test]
async fn every_process_of_a_service_is_known_for_its_own_in_any_tier() {
    let none = options().env("MHNOS_SANDBOX", "none").on("none");
    let strict = strict_hosts().map(|host| (host, options().on(host)));
    for (host, options) in strict.chain([("none", none)]) {
        let server = Server::start(options);
        let mut wire = Wire::connect(server.address()).await;
        let script = "(setsid env -i sleep 1000 &) ; exec env -i sleep 1000";
        wire.spawn(json!({"processType": "shell", "command": "bash", "args": ["-c", script]})).await;
        let all = server.descendants();
        assert!(all.len() >= 5, "{host}: bridge, init, a supervisor, a program and one that waits: {all:#?}");
        let seen: HashSet<i32> = server.leftovers().iter().map(|one| one.os_pid).collect();
        let unseen: Vec<_> = all.into_iter().filter(|one| !seen.contains(&one.os_pid)).collect();
        // Those that have ended meanwhile aside.
        let unseen = alive(&unseen);
        assert!(unseen.is_empty(), "{host}: {unseen:#?}");
    }
}

#[tokio::test]
async fn killed_at_any_moment_nothing_is_left_in_any_tier() {
    for host in strict_hosts() {
        let mut server = Server::start(options().on(host));
        let mut wire = Wire::connect(server.address()).await;
        for script in [
            "sleep 1000",
            "(setsid sleep 1000 &) ; sleep 1000",
            "trap '' TERM HUP; while :; do sleep 1; done",
        ] {
            wire.spawn(json!({"processType": "shell", "command": "bash", "args": ["-c", script]})).await;
        }
        server.kill();
        server.assert_nothing_left();
    }
}

/// Nobody is there to remove those of a service that is killed, but for the next one.
#[tokio::test]
async fn control_groups_go_with_their_service_and_those_of_a_killed_one_at_the_next_start() {
    let mut killed = Server::start(options().on("root"));
    let mut wire = Wire::connect(killed.address()).await;
    wire.spawn(json!({"processType": "shell", "command": "bash", "args": ["-c", "sleep 1000"]})).await;
    assert!(!killed.control_groups().is_empty(), "the control");
    killed.kill();
    killed.assert_nothing_left();
    let mut next = Server::start(options().on("root"));
    assert!(killed.control_groups().is_empty(), "{:?}", killed.control_groups());
    let mut wire = Wire::connect(next.address()).await;
    wire.spawn(json!({"processType": "shell", "command": "bash", "args": ["-c", "sleep 1000"]})).await;
    assert!(!next.control_groups().is_empty(), "the control");
    assert!(next.stop().success());
    next.assert_nothing_left();
}

/// Without walls nothing but the supervisors holds the programs together, and they learn of the keeper's end by their channels.
#[tokio::test]
async fn killed_at_any_moment_nothing_is_left_without_walls_either() {
    for moment in 0..3 {
        let mut server = Server::start(options().env("MHNOS_SANDBOX", "none").on("none"));
        let mut wire = Wire::connect(server.address()).await;
        for script in [
            "sleep 1000",
            "(setsid bash -c 'sleep 1000 & sleep 1000' &) ; sleep 1000",
            "trap '' TERM HUP INT; while :; do sleep 1; done",
            // Forks on and on.
            "trap '' TERM HUP; while :; do (setsid sleep 1000 &); sleep 0.05; done",
        ] {
            for pty in [false, true] {
                let options = json!({"pty": pty});
                let spawn = json!({"type": "spawn", "id": 1, "processType": "shell", "command": "bash", "args": ["-c", script],
                                   "options": options});
                // At the last moment some of them are only being started.
                if moment < 2 {
                    wire.spawn(spawn).await;
                } else {
                    wire.send(&spawn).await;
                }
            }
        }
        if moment == 1 {
            // Nor does it help that there is no bridge just then.
            kill_process(Pid::from_raw(bridge_of(&server)).expect("a pid"), Signal::KILL).expect("ours");
        }
        server.kill();
        server.assert_nothing_left();
    }
}

#[tokio::test]
async fn a_killed_bridge_is_followed_by_one_that_goes_on_in_any_tier() {
    for host in strict_hosts() {
        let server = Server::start(options().on(host));
        let mut wire = Wire::connect(server.address()).await;
        let pid = wire
            .spawn(json!({"processType": "shell", "command": "bash", "args": ["-c", "exec sleep 1000"]}))
            .await;
        let bridge = Pid::from_raw(bridge_of(&server)).expect("a pid");
        kill_process(bridge, Signal::KILL).expect("kill the bridge");
        server.logged(DEADLINE, "\"generation\":2");
        let mut wire = Wire::connect(server.address()).await;
        let list = wire.request(json!({"type": "list", "id": 1})).await;
        assert!(list.to_string().contains(&pid.to_string()), "{host}: {list}");
        // It reaches the programs' files as the first one did.
        let next =
            wire.spawn(json!({"processType": "shell", "command": "bash", "args": ["-c", "exit 3"]})).await;
        assert_eq!(wire.run_to_exit(next).await.2["code"], 3, "{host}");
    }
}

/// The first processes of all sandboxes. Supervisors, which are forked from them, have the same command line.
pub(crate) fn inits(server: &Server) -> Vec<Pid> {
    let of_the_keeper = server.descendants().into_iter().filter(|process| process.parent == server.os_pid());
    let inits = of_the_keeper.filter(|process| process.command.starts_with("mhnos-init"));
    let inits: Vec<_> = inits.filter_map(|process| Pid::from_raw(process.os_pid)).collect();
    assert!(!inits.is_empty(), "no init");
    inits
}

/// The namespaces end with it, and where there are none the keeper sees to it.
#[tokio::test]
async fn a_killed_init_is_the_end_of_its_sandbox_and_the_next_spawn_gets_a_new_one() {
    for host in strict_hosts() {
        let mut server = Server::start(options().on(host));
        let mut wire = Wire::connect(server.address()).await;
        let script = "(setsid sleep 1000 &); echo up; exec sleep 1000";
        let mut pids = Vec::new();
        for isolation in ["shared", "shared", "private"] {
            let options = json!({"pty": false, "isolation": isolation});
            let spawn = json!({"processType": "shell", "command": "bash", "args": ["-c", script], "options": options});
            let pid = wire.spawn(spawn).await;
            wire.stdout_until(pid, "up").await;
            pids.push(pid);
        }
        for init in inits(&server) {
            kill_process(init, Signal::KILL).expect("kill init");
        }
        for pid in pids {
            let (_, _, exit) = wire.run_to_exit(pid).await;
            let end = (&exit["reason"], &exit["code"], &exit["signal"]);
            assert_eq!(end, (&json!("lost"), &Value::Null, &Value::Null), "{host}: {exit}");
        }
        let next =
            wire.spawn(json!({"processType": "shell", "command": "bash", "args": ["-c", "exit 3"]})).await;
        assert_eq!(wire.run_to_exit(next).await.2["code"], 3, "{host}");
        server.stop();
        server.assert_nothing_left();
    }
}
