//! What a test leaves out on the machine at hand is said, and counted: the harness would call it passed and keep its words.

use std::io::Write;

/// How each line begins that tells of it: `make test` counts them, and the keeper's suite has its tests ignored by them.
pub const WAIVED: &str = "waived: ";

/// The variable that names what a run does without: `MHNOS_TEST_WAIVED=root,no-namespaces`.
pub const VARIABLE: &str = "MHNOS_TEST_WAIVED";

/// To be called wherever a test does not show all that its name promises: what is left out, and why.
pub fn waive(name: &str, why: &str) {
    // A test on the main thread, where they run one by one, stands in the line already.
    let thread = std::thread::current();
    let test =
        thread.name().filter(|test| *test != "main").map(|test| format!("{test}: ")).unwrap_or_default();
    // Not by `println!`, whose text the harness keeps from everybody where the test passes.
    let mut stdout = std::io::stdout().lock();
    let told = writeln!(stdout, "{WAIVED}{test}{name}: {why}").and_then(|()| stdout.flush());
    told.expect("stdout");
}

/// Those of these hosts that the run does not do without; the others are told.
pub fn kept(hosts: &[&'static str]) -> Vec<&'static str> {
    let waived = std::env::var(VARIABLE).unwrap_or_default();
    let (left_out, kept): (Vec<&str>, Vec<&str>) =
        hosts.iter().copied().partition(|host| waived.split(',').any(|name| name == *host));
    for host in left_out {
        waive(host, &format!("left out by {VARIABLE}"));
    }
    assert!(!kept.is_empty(), "a test on no host at all shows nothing");
    kept
}
