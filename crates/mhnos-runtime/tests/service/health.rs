//! `mhnos-runtime health`, as a container's health check runs it.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    process::{Command, Output, Stdio},
};

use mhnos_testing::waive;

use crate::{SERVICE, start};

fn ask(host: &str, port: u16) -> Output {
    let mut command = Command::new(SERVICE);
    command.arg("health").env_clear().env("MHNOS_HOST", host).env("MHNOS_TRUST_NETWORK", "true");
    command.env("MHNOS_RUNTIME_PORT", port.to_string()).output().expect("runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_service_that_answers_is_healthy_and_one_that_has_ended_is_not() {
    let mut server = start();
    let port = server.address().port();
    // The addresses a service may be set up with: loopback, and all of a container's.
    for host in ["127.0.0.1", "127.0.0.1,::1", "0.0.0.0"] {
        let output = ask(host, port);
        assert!(output.status.success(), "{host}: {}", stderr(&output));
        let body: serde_json::Value = serde_json::from_slice(&output.stdout).expect("the service's answer");
        assert!(body["sandbox"]["tier"].is_string(), "{body}");
    }
    server.stop();
    let output = ask("127.0.0.1", port);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&format!("127.0.0.1:{port}: no service listens")), "{output:?}");
}

#[test]
fn what_is_no_service_is_not_healthy_and_the_message_says_what_it_is() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("a port").port();
    for (answer, expected) in [
        ("", "does not speak HTTP"),
        ("SSH-2.0-x\r\n", "does not speak HTTP"),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "answers HTTP/1.1 403 Forbidden"),
    ] {
        let other = std::thread::spawn({
            let listener = listener.try_clone().expect("a second handle");
            move || {
                let (mut stream, _) = listener.accept().expect("the check comes");
                stream.write_all(answer.as_bytes()).expect("write");
                // Until the check has sent its request, so that closing is not a reset.
                let _ = std::io::Read::read(&mut stream, &mut [0; 1024]);
            }
        });
        let output = ask("127.0.0.1", port);
        other.join().expect("answered");
        assert_eq!(output.status.code(), Some(1), "{answer:?}");
        assert!(stderr(&output).contains(expected), "{answer:?}: {output:?}");
    }
    // Accepted by the kernel, answered by nobody.
    let output = ask("127.0.0.1", port);
    assert!(stderr(&output).contains("not within"), "{output:?}");
    let output = ask("127.0.0.1", 0);
    assert!(stderr(&output).contains("--runtime-port"), "{output:?}");
}

/// Held where it waits for an answer, since it is over in milliseconds.
#[test]
fn a_health_check_that_root_starts_connects_as_somebody_else_without_any_power() {
    if !rustix::process::geteuid().is_root() {
        waive("root", "only root has something to give up");
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("a port").port();
    let mut check = Command::new(SERVICE);
    check.arg("health").env_clear().env("MHNOS_RUNTIME_PORT", port.to_string());
    let mut check = check.stderr(Stdio::null()).spawn().expect("runs");
    let connection = listener.accept().expect("the check comes");
    let status = fs::read_to_string(format!("/proc/{}/status", check.id())).expect("it is there");
    drop(connection);
    assert_eq!(check.wait().expect("ends").code(), Some(1), "nobody answered");
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.split_whitespace().collect::<Vec<_>>()
    };
    for ids in ["Uid:", "Gid:"] {
        assert!(line(ids).iter().all(|id| *id != "0"), "{ids} {:?}", line(ids));
    }
    assert!(line("Groups:").is_empty(), "{status}");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(line(set), ["0000000000000000"], "{set}");
    }
}
