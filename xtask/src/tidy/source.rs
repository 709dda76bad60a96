//! Rules for Rust files.

use std::path::Path;

use super::{File, Finding};

mod code;

use code::code_only;

/// Longer files are mentioned by nobody, but should not stay.
const LENGTH_SOFT: usize = 400;
/// Longer files must be split.
const LENGTH_HARD: usize = 600;

/// The places where `unsafe` may stand.
const UNSAFE: &[&str] = &["crates/mhnos-sandbox/src/sys.rs", "crates/mhnos-sandbox/src/sys/"];

/// Test files that may sleep, and why.
const SLEEPERS: &[(&str, &str)] = &[
    ("crates/mhnos-testing/src/eventually.rs", "the polling that everybody uses instead"),
    ("crates/mhnos-process/src/log/tests/killed.rs", "varies the instant of a kill"),
    (
        "crates/mhnos-process/tests/service/pace.rs",
        "looks again for what has no event, and varies the instant of a kill",
    ),
];

/// Left-over notes and holes; a thing to do is an issue, not a comment.
const MARKERS: &[&str] =
    &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK:")];
const HOLES: &[&str] = &["todo!", "unimplemented!", "dbg!"];

pub(super) fn check(file: &File, findings: &mut Vec<Finding>) {
    let path = file.path.as_path();
    let mut found = |rule, line, what: String| findings.push(Finding::new(rule, path, line, what));
    if !file.text.starts_with("//!") {
        found("header", 1, "the file does not open with a //! that says why it exists".to_owned());
    }
    let code = code_only(&file.text);
    let tests_from = tests_start(path, &code);
    let own = tests_from.min(file.text.lines().count());
    if own > LENGTH_HARD {
        found("length", 0, format!("{own} lines without tests; at most {LENGTH_HARD}, better {LENGTH_SOFT}"));
    } else if own > LENGTH_SOFT {
        eprintln!("note: {}: {own} lines without tests; {LENGTH_SOFT} is the aim", path.display());
    }
    for (number, (line, code)) in (1..).zip(file.text.lines().zip(code.lines())) {
        for marker in MARKERS.iter().filter(|marker| has_word(line, marker)) {
            found("markers", number, format!("{marker}: finish it, or file an issue"));
        }
        for hole in HOLES.iter().filter(|hole| code.contains(**hole)) {
            found("markers", number, format!("{hole} must not be committed"));
        }
        if has_word(code, "unsafe") && !in_places(path, UNSAFE) {
            found("unsafe", number, format!("only {} may have unsafe code", UNSAFE[0]));
        }
        let sleeps = has_word(code, "sleep") && code.contains("sleep(");
        if number > tests_from && sleeps && !SLEEPERS.iter().any(|(known, _)| path == Path::new(known)) {
            found(
                "sleep",
                number,
                "a test waits for what it needs (`eventually`, an event), not for time".to_owned(),
            );
        }
    }
}

/// The line after which everything is test code: none before the first `#[cfg(test)]`, all of a test file.
fn tests_start(path: &Path, code: &str) -> usize {
    let in_tests =
        path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "mhnos-testing");
    if in_tests || path.file_name().is_some_and(|name| name == "tests.rs") {
        return 0;
    }
    let inline = |line: &str| line.starts_with("#[cfg(test)]");
    // `#[cfg(test)] mod tests;` leads to a file of its own; only a block that opens here counts.
    let lines: Vec<&str> = code.lines().collect();
    let block = lines.iter().enumerate().position(|(index, line)| {
        inline(line)
            && lines[index..].iter().take(3).any(|next| next.starts_with("mod ") && next.ends_with('{'))
    });
    block.unwrap_or(lines.len())
}

fn in_places(path: &Path, places: &[&str]) -> bool {
    let path = path.to_string_lossy();
    places.iter().any(|place| if place.ends_with('/') { path.starts_with(place) } else { path == *place })
}

/// Whether `word` stands in `line` with no letter, digit or underscore beside it.
fn has_word(line: &str, word: &str) -> bool {
    let part = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{File, check, has_word};

    fn rules(path: &str, text: &str) -> Vec<&'static str> {
        let mut findings = Vec::new();
        check(&File { path: PathBuf::from(path), text: text.to_owned() }, &mut findings);
        findings.into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn a_header_is_required() {
        assert_eq!(rules("crates/a/src/b.rs", "fn main() {}\n"), ["header"]);
        assert!(rules("crates/a/src/b.rs", "//! Why.\nfn main() {}\n").is_empty());
    }

    #[test]
    fn unsafe_is_found_in_code_but_not_in_words() {
        assert_eq!(rules("crates/a/src/b.rs", "//! Why.\nunsafe { x() }\n"), ["unsafe"]);
        assert!(rules("crates/a/src/b.rs", "//! unsafe\nlet a = \"unsafe\"; // unsafe\n").is_empty());
        assert!(rules("crates/a/src/b.rs", "//! Why.\n#![forbid(unsafe_code)]\n").is_empty());
        assert!(rules("crates/mhnos-sandbox/src/sys.rs", "//! Why.\nunsafe { x() }\n").is_empty());
        assert!(rules("crates/mhnos-sandbox/src/sys/a.rs", "//! Why.\nunsafe { x() }\n").is_empty());
    }

    #[test]
    fn sleeping_is_found_in_tests_only() {
        let sleeping = "//! Why.\nfn a() { sleep(b); }\n";
        assert_eq!(rules("crates/a/tests/b.rs", sleeping), ["sleep"]);
        assert!(rules("crates/a/src/b.rs", sleeping).is_empty());
        assert_eq!(
            rules("crates/a/src/b.rs", &format!("//! Why.\n#[cfg(test)]\nmod tests {{\n{sleeping}}}\n")),
            ["sleep"]
        );
        assert!(rules("crates/mhnos-testing/src/eventually.rs", sleeping).is_empty());
    }

    #[test]
    fn left_over_notes_are_found() {
        let note = concat!("//! Why.\n// TO", "DO: later\n");
        assert_eq!(rules("crates/a/src/b.rs", note), ["markers"]);
        assert_eq!(rules("crates/a/src/b.rs", concat!("//! Why.\nfn a() { to", "do!() }\n")), ["markers"]);
    }

    #[test]
    fn a_file_that_is_too_long_must_be_split_but_tests_do_not_count() {
        let long = format!("//! Why.\n{}", "fn a() {}\n".repeat(700));
        assert_eq!(rules("crates/a/src/b.rs", &long), ["length"]);
        assert!(rules("crates/a/tests/b.rs", &long).is_empty());
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("an unsafe block", "unsafe"));
        assert!(!has_word("unsafe_code", "unsafe"));
    }
}
