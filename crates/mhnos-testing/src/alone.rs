//! Tests of what a whole process has, as a limit.

use std::{env, process::Command};

const ALONE: &str = "MHNOS_TEST_ALONE";

/// Whether this process is the test's own. If not, the test with this name is run in one, and passes as it does there: there is
/// nothing left to do here.
#[track_caller]
pub fn alone(name: &str) -> bool {
    if env::var_os(ALONE).is_some() {
        return true;
    }
    let this = env::current_exe().expect("this test");
    let alone = Command::new(this).args([name, "--exact"]).env(ALONE, "1").output().expect("runs");
    let said = String::from_utf8_lossy(&alone.stdout);
    assert!(alone.status.success() && said.contains("1 passed"), "{said}");
    false
}
