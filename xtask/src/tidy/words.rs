//! Words that have no place in the repository: places on somebody's machine, and where packages come from.
//!
//! A checkout is built wherever the machine's own package clients lead; a host name in a file would pin it to one.

use super::{File, Finding};

/// Written in halves, so that this file passes its own rule.
const WORDS: &[(&str, &str)] = &[
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("/root/", ".cargo"), "a path of one machine"),
    (concat!("registry.np", "mjs"), "a registry's host"),
    (concat!("np", "mjs.com"), "a registry's host"),
    (concat!("crates", ".io"), "a registry's host"),
    (concat!("py", "pi.org"), "a registry's host"),
    (concat!("pythonhos", "ted.org"), "a registry's host"),
    (concat!("deb.deb", "ian.org"), "a registry's host"),
    (concat!("CONTR", "ACT.md"), "a paper that is not in the repository"),
    (concat!("chat", "gpt"), "not about the product"),
    (concat!("language ", "model"), "not about the product"),
];

/// Cargo writes its index's name into the lock file, whatever the machine uses.
const EXEMPT: &[&str] = &["Cargo.lock"];

pub(super) fn check(file: &File, findings: &mut Vec<Finding>) {
    if EXEMPT.iter().any(|exempt| file.path.as_os_str() == *exempt) {
        return;
    }
    for (number, line) in (1..).zip(file.text.lines()) {
        let line = line.to_lowercase();
        for (word, why) in WORDS.iter().filter(|(word, _)| line.contains(&word.to_lowercase())) {
            findings.push(Finding::new("words", &file.path, number, format!("'{word}': {why}")));
        }
    }
}
