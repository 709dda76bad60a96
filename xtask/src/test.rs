//! `cargo test` with one closing line for all test binaries, because cargo prints one for each and the last may be empty.
//! Without arguments also the models of threads, which are a build of their own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

/// What the `test result:` lines count, and the lines of tests that leave something out (`mhnos_testing::waive`).
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    passed: u64,
    failed: u64,
    ignored: u64,
    waived: u64,
}

/// How such a line begins, or goes on where the harness has begun one.
const WAIVED: &str = "waived: ";

/// The crate whose threads are modelled, with the model checker's locks.
const THREADS: [&str; 6] =
    ["--package", "mhnos-process", "--lib", "--features", "model-threads", "threads::"];

pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<ExitCode> {
    let mut sum = Sum::default();
    let everything =
        ["--workspace", "--no-fail-fast"].into_iter().chain(arguments.iter().map(String::as_str));
    let mut passed = cargo_test(root, everything, &mut sum)?;
    if arguments.is_empty() {
        passed &= cargo_test(root, THREADS, &mut sum)?;
        passed &= missing_checkers(root, &mut sum)?;
    }
    println!(
        "\n{} passed, {} failed, {} skipped, {} parts of passed ones waived",
        sum.passed, sum.failed, sum.ignored, sum.waived
    );
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// False if a test failed, or none ran.
fn cargo_test<'a>(root: &Path, arguments: impl IntoIterator<Item = &'a str>, sum: &mut Sum) -> Result<bool> {
    let mut child = Command::new("cargo")
        .args(["test", "--release", "--locked"])
        .args(arguments)
        .current_dir(root)
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo test")?;
    let stdout = child.stdout.take().expect("piped above");
    let before = sum.passed;
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("reading cargo test")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        sum.add(&line);
    }
    let status = child.wait().context("cargo test")?;
    Ok(status.success() && sum.passed > before)
}

/// What `make lint`, the other half of `make test`, did without.
fn missing_checkers(root: &Path, sum: &mut Sum) -> Result<bool> {
    let output = Command::new("deploy/test/lint.sh").arg("missing").current_dir(root).output();
    let output = output.context("deploy/test/lint.sh")?;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        println!("{line}");
        sum.add(line);
    }
    Ok(output.status.success())
}

impl Sum {
    fn add(&mut self, line: &str) {
        if line.starts_with(WAIVED) || line.contains(" ... waived: ") {
            self.waived += 1;
        }
        let Some(counts) = line.strip_prefix("test result:") else { return };
        for part in counts.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) =
                (words.next().and_then(|word| word.parse::<u64>().ok()), words.next())
            else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Sum;

    #[test]
    fn result_lines_of_all_binaries_are_added_up() {
        let mut sum = Sum::default();
        sum.add(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        );
        sum.add("test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.20s");
        sum.add("test something ... ok");
        sum.add("waived: lint: hadolint is missing, so its files are not checked here");
        sum.add("waived: a test: root: left out by MHNOS_TEST_WAIVED");
        sum.add("test another ... waived: alg: not in this kernel");
        sum.add("test waived_ones_are_told ... ignored, waived by MHNOS_TEST_WAIVED");
        assert_eq!(sum, Sum { passed: 5, failed: 4, ignored: 1, waived: 3 });
    }
}
