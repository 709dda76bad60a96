//! A test that moves into a network of its own, where it may give itself what addresses it likes.

use std::process::Command;

use rustix::process::geteuid;

/// Set in the test's second life, inside.
const INSIDE: &str = "MHNOS_TEST_INSIDE_A_NETWORK";

/// Whether this test is inside. If not it has been there, and passed, when this returns.
#[track_caller]
pub(super) fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        ip("link set lo up");
        return true;
    }
    let user: &[&str] =
        if geteuid().is_root() { &[] } else { &["--user", "--map-current-user", "--keep-caps"] };
    let output = Command::new("unshare")
        .args(user)
        .arg("--net")
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("this test needs `unshare` (util-linux)");
    let told = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{told}\n{stderr}");
    false
}

#[track_caller]
pub(super) fn ip(arguments: &str) {
    let output =
        Command::new("ip").args(arguments.split(' ')).output().expect("this test needs `ip` (iproute2)");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
