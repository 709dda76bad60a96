//! Where the real programs are that the tests start: node, npm, workerd, openclaw.
//!
//! They are the pinned ones that `deploy/tools/install test` puts into `.tools` of the checkout (`MHNOS_TOOLS_DIR` names
//! another place for both). Whatever the machine has besides is not used, so that everybody tests the same versions.

use std::path::{Path, PathBuf};

/// The directory with the tools' commands; panics with the remedy where it is missing.
#[track_caller]
pub fn tools_dir() -> PathBuf {
    let tools = tools_root();
    let commands = tools.join("node_modules/.bin");
    assert!(commands.is_dir(), "no tools in {}; to install them: deploy/tools/install test", tools.display());
    commands
}

fn tools_root() -> PathBuf {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/mhnos-testing is two deep");
    std::env::var_os("MHNOS_TOOLS_DIR").map_or_else(|| root.join(".tools"), PathBuf::from)
}

/// One tool's command; panics with the remedy where it is missing.
#[track_caller]
pub fn tool(name: &str) -> PathBuf {
    let command = tools_dir().join(name);
    assert!(command.exists(), "{} is missing; to install it: deploy/tools/install test", command.display());
    command
}

/// What `make run` gives the service as `--path`.
#[track_caller]
pub fn tools_path() -> String {
    format!("{}:/usr/local/bin:/usr/bin:/bin", tools_dir().display())
}

/// The same with the Node.js of another line, by its major version.
#[track_caller]
pub fn tools_path_with_node(major: u32) -> String {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    let node = tools_root().join(format!("nodes/node_modules/node-{major}-{architecture}/bin"));
    let remedy = "to install it: deploy/tools/install test";
    assert!(node.join("node").exists(), "no node in {}; {remedy}", node.display());
    format!("{}:{}", node.display(), tools_path())
}
