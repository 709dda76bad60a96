//! The repository's own commands: what a checkout can say about itself, and what takes more than a line of make.

#![allow(clippy::disallowed_methods)] // starts cargo and git

mod dev;
mod dist;
mod test;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

const USAGE: &str = "\
usage: cargo xtask COMMAND
  tidy          check the rules that a program can check: crate edges, licences, sources, documents
  test [ARGS]   cargo test --release --workspace, and one closing line with the sum
  dev [ARGS]    build and serve; rebuild and restart when a source file changes (ARGS go to `serve`)
  dist [DIR]    the release: tarball, Debian package, checksums, into target/release-files";

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next();
    let rest: Vec<String> = arguments.collect();
    match command.as_deref() {
        Some("tidy") => tidy::run(&root()),
        Some("test") => test::run(&root(), &rest),
        Some("dist") => dist::run(&root(), &rest),
        Some("dev") => dev::run(&root(), &rest),
        _ => {
            eprintln!("{USAGE}");
            Ok(ExitCode::from(2))
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository").to_owned()
}

/// Every file that git knows or would know: tracked, and new but not ignored. Paths relative to the root.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("git ls-files")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).context("a file name that is not UTF-8")?;
    let mut files: Vec<PathBuf> = names.split_terminator('\0').map(PathBuf::from).collect();
    // A file deleted but not yet staged is still listed.
    files.retain(|file| root.join(file).is_file());
    files.sort();
    files.dedup();
    Ok(files)
}
