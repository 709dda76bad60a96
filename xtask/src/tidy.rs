//! The rules of this repository that a program can check. Each names the file, the line, and what to do.
//!
//! What rustc, rustfmt and clippy check is left to them. A rule that needs an exception lists it by name beside the rule, with
//! the reason; there is no switch to turn one off.

mod commands;
mod documents;
mod graph;
mod source;
mod words;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::files;

/// The rules, as ARCHITECTURE.md may name them: `tidy::edges`.
const RULES: &[&str] = &[
    "edges",
    "confined",
    "licences",
    "banned",
    "header",
    "length",
    "markers",
    "unsafe",
    "sleep",
    "words",
    "links",
    "commands",
    "claims",
    "invariants",
];

/// A file of the repository, read once.
struct File {
    path: PathBuf,
    text: String,
}

/// Something to mend.
struct Finding {
    rule: &'static str,
    path: PathBuf,
    /// From 1; 0 where the whole file is meant.
    line: usize,
    what: String,
}

impl Finding {
    fn new(rule: &'static str, path: &Path, line: usize, what: impl Into<String>) -> Self {
        debug_assert!(RULES.contains(&rule), "{rule} is not listed");
        Self { rule, path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}: {}", self.rule, self.what)
    }
}

pub(crate) fn run(root: &Path) -> Result<ExitCode> {
    let files = read(root)?;
    let mut findings = graph::check(root)?;
    for file in &files {
        if file.path.extension().is_some_and(|kind| kind == "rs") {
            source::check(file, &mut findings);
        }
        words::check(file, &mut findings);
    }
    documents::check(root, &files, &mut findings);
    commands::check(root, &files, &mut findings);
    for finding in &findings {
        println!("{finding}");
    }
    println!("tidy: {} files, {} rules, {} to mend", files.len(), RULES.len(), findings.len());
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All text files; others (there are hardly any) have no rules.
fn read(root: &Path) -> Result<Vec<File>> {
    let mut read = Vec::new();
    for path in files(root)? {
        let bytes = std::fs::read(root.join(&path)).with_context(|| path.display().to_string())?;
        if let Ok(text) = String::from_utf8(bytes) {
            read.push(File { path, text });
        }
    }
    Ok(read)
}
