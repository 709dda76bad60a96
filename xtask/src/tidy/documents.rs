//! Documents: links lead somewhere, and every invariant of ARCHITECTURE.md names what shows it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{File, Finding, RULES};

/// The document whose numbered list "Invariants" is checked.
const ARCHITECTURE: &str = "ARCHITECTURE.md";
/// The document whose tables end each row with the tests that show it.
const CLAIMS: &str = "docs/threat-model.md";
/// What stands before the names in an invariant.
const SHOWN_BY: &str = "Shown by";

pub(super) fn check(root: &Path, files: &[File], findings: &mut Vec<Finding>) {
    for file in files.iter().filter(|file| file.path.extension().is_some_and(|kind| kind == "md")) {
        links(root, file, files, findings);
    }
    match files.iter().find(|file| file.path == Path::new(ARCHITECTURE)) {
        Some(document) => invariants(document, &known_names(root, files), findings),
        None => findings.push(Finding::new("invariants", Path::new(ARCHITECTURE), 0, "the file is missing")),
    }
    if let Some(document) = files.iter().find(|file| file.path == Path::new(CLAIMS)) {
        claims(document, &tests(files), findings);
    }
}

/// Relative links lead to a file or directory of the checkout, and their fragment to a heading there.
fn links(root: &Path, file: &File, files: &[File], findings: &mut Vec<Finding>) {
    let directory = file.path.parent().unwrap_or(Path::new(""));
    for (number, target) in targets(&file.text) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
        let linked = if path.is_empty() { file.path.clone() } else { normal(&directory.join(path)) };
        if !root.join(&linked).exists() {
            findings.push(Finding::new("links", &file.path, number, format!("{target} leads nowhere")));
            continue;
        }
        let document = files.iter().find(|other| other.path == linked);
        if let Some(document) = document.filter(|_| !fragment.is_empty())
            && !headings(&document.text).contains(fragment)
        {
            findings.push(Finding::new(
                "links",
                &file.path,
                number,
                format!("{target}: there is no such heading"),
            ));
        }
    }
}

/// `](target)` outside code, with line numbers from 1.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        // Every second piece between backticks is code.
        for piece in line.split('`').step_by(2) {
            let links = piece.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
            found.extend(
                links.map(|(target, _)| (number, target.split_whitespace().next().unwrap_or_default())),
            );
        }
    }
    found
}

/// Lines outside fenced blocks, with numbers from 1.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push((number, line));
        }
    }
    lines
}

/// The anchors that a Markdown renderer gives the headings.
fn headings(text: &str) -> BTreeSet<String> {
    let titles = prose(text).into_iter().filter(|(_, line)| line.starts_with('#'));
    let anchor = |title: &str| {
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect::<String>()
    };
    titles.map(|(_, line)| anchor(line.trim_start_matches('#').trim())).collect()
}

/// `a/b/../c` is `a/c`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                normal.pop();
            }
            std::path::Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

/// What an invariant may name: a test's function, a rule of tidy, a lint that is set.
fn known_names(root: &Path, files: &[File]) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = RULES.iter().map(|rule| format!("tidy::{rule}")).collect();
    for file in files.iter().filter(|file| file.path.extension().is_some_and(|kind| kind == "rs")) {
        let mut is_test = false;
        for line in file.text.lines().map(str::trim) {
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                is_test = true;
            } else if let Some(name) = function(line) {
                if is_test {
                    names.insert(name.to_owned());
                }
                is_test = false;
            }
        }
    }
    let lints = ["Cargo.toml", "clippy.toml"]
        .map(|file| std::fs::read_to_string(root.join(file)).unwrap_or_default());
    if lints[0].contains("unsafe_code = \"forbid\"") {
        names.insert("rustc::unsafe_code".to_owned());
    }
    if lints[1].contains("disallowed-methods") {
        names.insert("clippy::disallowed_methods".to_owned());
    }
    names
}

fn function(line: &str) -> Option<&str> {
    let rest = line.split_once("fn ")?.1;
    let end = rest.find(['(', '<'])?;
    Some(&rest[..end])
}

/// Functions of files that hold tests; those of a test without a harness have no attribute.
fn tests(files: &[File]) -> BTreeSet<String> {
    let holds_tests = |file: &&File| {
        let path = file.path.to_string_lossy();
        path.ends_with(".rs") && (path.contains("/tests/") || path.ends_with("tests.rs"))
    };
    let lines = files.iter().filter(holds_tests).flat_map(|file| file.text.lines());
    lines.filter_map(|line| function(line.trim())).map(str::to_owned).collect()
}

/// Every test that the last cell of a row names exists. A name that ends in a star stands for many.
fn claims(document: &File, tests: &BTreeSet<String>, findings: &mut Vec<Finding>) {
    for (number, line) in document.text.lines().enumerate().filter(|(_, line)| line.starts_with('|')) {
        let cell = line.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let names = cell.split('`').skip(1).step_by(2).filter(|name| name.contains('_'));
        for name in names.filter(|name| !name.ends_with('*') && !tests.contains(*name)) {
            findings.push(Finding::new(
                "claims",
                &document.path,
                number + 1,
                format!("no test is named {name}"),
            ));
        }
    }
}

/// Every item of the list has at least one name after SHOWN_BY, and each name exists.
fn invariants(document: &File, known: &BTreeSet<String>, findings: &mut Vec<Finding>) {
    let mut found =
        |line, what: String| findings.push(Finding::new("invariants", &document.path, line, what));
    let items = invariant_items(&document.text);
    if items.is_empty() {
        found(0, "no numbered list under the heading 'Invariants'".to_owned());
    }
    for (number, item) in items {
        let Some((_, shown)) = item.split_once(SHOWN_BY) else {
            found(number, format!("no '{SHOWN_BY}' with the test or lint that shows it"));
            continue;
        };
        let names: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            found(number, format!("no name after '{SHOWN_BY}'"));
        }
        for name in names.into_iter().filter(|name| !known.contains(*name)) {
            found(number, format!("{name} is no test, lint or rule"));
        }
    }
}

/// The items of the numbered list, joined to one line each, with the number of their first line.
fn invariant_items(text: &str) -> Vec<(usize, String)> {
    let mut items: Vec<(usize, String)> = Vec::new();
    let mut inside = false;
    for (number, line) in prose(text) {
        if line.starts_with('#') {
            inside = line.trim_start_matches('#').trim() == "Invariants";
        } else if inside && line.starts_with(|c: char| c.is_ascii_digit()) {
            items.push((number, line.to_owned()));
        } else if inside
            && line.starts_with(' ')
            && let Some((_, item)) = items.last_mut()
        {
            item.push(' ');
            item.push_str(line.trim());
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::{CLAIMS, File, claims, headings, invariants, targets};

    #[test]
    fn links_are_found_outside_code() {
        let text = "see [a](b.md#c) and `[d](e)`\n```\n[f](g)\n```\n![h](i.png \"j\")\n";
        assert_eq!(targets(text), [(1, "b.md#c"), (5, "i.png")]);
    }

    #[test]
    fn headings_become_anchors() {
        assert!(headings("# Exit, and `reason`\n").contains("exit-and-reason"));
    }

    #[test]
    fn a_claim_needs_a_test_that_exists() {
        let text =
            "| claim | shown by |\n|---|---|\n| a | `it_holds` |\n| b `x_y` | `it_is_gone`, `all_*` |\n";
        let document = File { path: PathBuf::from(CLAIMS), text: text.to_owned() };
        let mut findings = Vec::new();
        claims(&document, &BTreeSet::from(["it_holds".to_owned()]), &mut findings);
        assert_eq!(findings.iter().map(|finding| finding.line).collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn an_invariant_needs_something_that_exists() {
        let text =
            "## Invariants\n\n1. One. Shown by `there`.\n2. Two.\n   Shown by\n   `gone`.\n3. Three.\n";
        let document = File { path: PathBuf::from("ARCHITECTURE.md"), text: text.to_owned() };
        let mut findings = Vec::new();
        invariants(&document, &BTreeSet::from(["there".to_owned()]), &mut findings);
        assert_eq!(findings.iter().map(|finding| finding.line).collect::<Vec<_>>(), [4, 7]);
    }
}
