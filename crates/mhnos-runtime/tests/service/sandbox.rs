//! What a program inside can do, asked of the probe, with the same question outside the walls as the control.

use mhnos_testing::{Options, Probe, Server, Wire};
use serde_json::json;

use crate::{SERVICE, options, start};

/// Runs the probe as a program of the service and reads its report.
async fn probe(options: Options, attempts: &[String]) -> (Server, Probe) {
    let server = Server::start(options);
    let program = Probe::install(&server, SERVICE);
    let mut wire = Wire::connect(server.address()).await;
    let mut arguments = vec!["-c".to_owned(), "exec \"$@\"".to_owned(), "probe".to_owned(), program];
    arguments.extend_from_slice(attempts);
    let pid = wire
        .spawn(
            json!({"processType": "shell", "command": "bash", "args": arguments, "options": {"pty": false}}),
        )
        .await;
    let (stdout, stderr, exit) = wire.run_to_exit(pid).await;
    assert_eq!(exit["code"], 0, "{stdout}\n{stderr}");
    (server, Probe::parse(&stdout))
}

fn attempts(server_pid: u32, port: u16) -> Vec<String> {
    vec![
        "facts".to_owned(),
        format!("kill={server_pid}"),
        format!("read=/proc/{server_pid}/environ"),
        format!("connect=127.0.0.1:{port}"),
        "read=/etc/hostname".to_owned(),
        "write=/usr/mhnos-probe".to_owned(),
        "write=/workspace/new".to_owned(),
        "socket=tcp".to_owned(),
    ]
}

#[tokio::test]
async fn strict_walls_off_the_host_and_leaves_the_workspace() {
    // A bystander on the host, which the program must neither see, signal nor connect to.
    let bystander = start();
    let port = bystander.address().port();
    let wanted = attempts(u32::try_from(bystander.os_pid()).expect("a pid"), port);
    let (_server, report) = probe(options(), &wanted).await;
    report.assert_denied(&wanted[1], &["ESRCH", "EPERM"]);
    report.assert_denied(&wanted[2], &["ENOENT", "EACCES", "EPERM"]);
    report.assert_denied(&format!("connect=127.0.0.1:{port}"), &["ECONNREFUSED"]);
    // A file of the sandbox's own under that name.
    assert_eq!(report.value("read=/etc/hostname"), "mhnos\n");
    report.assert_denied("write=/usr/mhnos-probe", &["EROFS"]);
    report.assert_ok("write=/workspace/new");
    report.assert_ok("socket=tcp");
    let status = report.value("status");
    assert_eq!(status["NoNewPrivs"], "1", "{status}");
    assert_eq!(status["CapEff"], "0000000000000000", "{status}");
    let processes = report.value("processes").as_object().expect("a process table");
    assert!(processes.values().all(|command| !command.to_string().contains(" serve")), "{processes:?}");
}

#[tokio::test]
async fn without_walls_the_same_probe_reaches_the_host() {
    let bystander = start();
    let port = bystander.address().port();
    let wanted = attempts(u32::try_from(bystander.os_pid()).expect("a pid"), port);
    let (_server, report) = probe(options().env("MHNOS_SANDBOX", "none"), &wanted).await;
    report.assert_ok(&format!("connect=127.0.0.1:{port}"));
    let hosts = std::fs::read_to_string("/etc/hostname").expect("the host's own");
    assert_eq!(report.value("read=/etc/hostname"), &hosts);
    assert_ne!(hosts, "mhnos\n", "a host of that name is no control");
    let processes = report.value("processes").as_object().expect("a process table");
    assert!(processes.values().any(|command| command.to_string().contains(" serve")), "{processes:?}");
}

#[tokio::test]
async fn a_program_inherits_nothing_of_the_service() {
    let secret =
        options().env("MHNOS_SECRET_FOR_THE_TEST", "not for programs").env("FOREIGN", "not for programs");
    let (_server, report) = probe(secret, &["facts".to_owned()]).await;
    let env = report.value("env");
    assert!(!env.to_string().contains("not for programs"), "{env}");
    assert_eq!(env["USER"], "mhnos", "{env}");
    assert_eq!(env["NODE_ENV"], "production", "{env}");
    let fds = report.value("fds").as_object().expect("descriptors");
    let beyond: Vec<_> = fds.keys().filter(|number| !["0", "1", "2"].contains(&number.as_str())).collect();
    assert!(beyond.is_empty(), "{fds:?}");
    let session = report.value("session");
    assert_eq!(session["sid"], session["pgid"], "its own session: {session}");
    let status = report.value("status");
    assert_eq!(status["SigBlk"], "0000000000000000", "{status}");
    // The probe's own runtime ignores SIGPIPE (13). 32 and 33 are the C library's own: its posix_spawn, by which this
    // test starts the service, leaves them ignored, and nothing but a thread library can change them.
    let ignored = status["SigIgn"].as_str().and_then(|mask| u64::from_str_radix(mask, 16).ok());
    assert_eq!(ignored.map(|mask| mask & !(1 << 31 | 1 << 32)), Some(1 << 12), "{status}");
}
