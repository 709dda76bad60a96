//! The probe's own controls: outside any sandbox it must be able to do what its denial tests expect to be refused.

#![allow(clippy::disallowed_methods)] // starts the probe by itself

use std::process::Command;

use mhnos_testing::{Probe, Scratch};

fn probe(arguments: &[&str]) -> Probe {
    let output = Command::new(env!("CARGO_BIN_EXE_mhnos-probe"))
        .args(arguments)
        .output()
        .expect("the probe was built");
    assert!(output.status.success(), "{output:?}");
    Probe::parse(&String::from_utf8(output.stdout).expect("the probe writes UTF-8"))
}

#[test]
fn facts_tell_who_and_where() {
    let report = probe(&[]);
    assert_eq!(report.value("identity")["uid"], rustix::process::getuid().as_raw());
    assert!(report.value("session")["sid"].is_number());
    assert!(
        report.value("fds").as_object().is_some_and(|fds| fds.contains_key("0") && fds.contains_key("1"))
    );
    assert!(report.value("status")["CapEff"].is_string());
    assert!(report.value("processes").as_object().is_some_and(|all| !all.is_empty()));
}

#[test]
fn what_is_allowed_succeeds_and_what_is_not_names_the_error() {
    let scratch = Scratch::new();
    let inside = format!("write={}/file", scratch.path().display());
    let report =
        probe(&["read=/proc/self/stat", &inside, "read=/no/such/file", "write=/proc/new", "socket=tcp"]);
    report.assert_ok("read=/proc/self/stat");
    report.assert_ok(&inside);
    report.assert_ok("socket=tcp");
    report.assert_denied("read=/no/such/file", &["ENOENT"]);
    report.assert_denied("write=/proc/new", &["ENOENT", "EACCES"]);
}

#[test]
fn an_unknown_attempt_is_an_error_not_a_denial() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_mhnos-probe")).arg("raed=/etc/shadow").output().expect("built");
    assert_eq!(output.status.code(), Some(2));
}
