//! What documents tell people to type is there: make's targets, npm's scripts, and what those start.

use std::collections::BTreeSet;
use std::path::Path;

use super::{File, Finding};

/// Whose targets `make TARGET` in a document means.
const MAKEFILE: &str = "Makefile";
/// Whose scripts `npm run SCRIPT` means.
const PACKAGE: &str = "package.json";
/// Scripts that npm starts without `run`.
const WITHOUT_RUN: [&str; 2] = ["start", "test"];

pub(super) fn check(root: &Path, files: &[File], findings: &mut Vec<Finding>) {
    let text = |name: &str| files.iter().find(|file| file.path == Path::new(name)).map(|file| &*file.text);
    let targets: BTreeSet<&str> = targets(text(MAKEFILE).unwrap_or_default()).collect();
    let scripts = scripts(text(PACKAGE).unwrap_or_default());
    for (line, _, command) in &scripts {
        if let Some(what) = missing(root, &targets, command) {
            findings.push(Finding::new("commands", Path::new(PACKAGE), *line, what));
        }
    }
    let scripts: BTreeSet<&str> = scripts.iter().map(|(_, name, _)| *name).collect();
    for file in files.iter().filter(|file| file.path.extension().is_some_and(|kind| kind == "md")) {
        for (line, told) in (1..).zip(file.text.lines()) {
            for what in unknown(told, &targets, &scripts) {
                findings.push(Finding::new("commands", &file.path, line, what));
            }
        }
    }
}

/// `name:` where a line begins.
fn targets(makefile: &str) -> impl Iterator<Item = &str> {
    makefile.lines().filter_map(|line| {
        let (name, rest) = line.split_once(':')?;
        (!name.is_empty() && names(name) && !rest.starts_with('=')).then_some(name)
    })
}

/// Line, name and command of each script: one a line, as npm writes them.
fn scripts(package: &str) -> Vec<(usize, &str, &str)> {
    let lines = (1..).zip(package.lines());
    let inside = lines.skip_while(|(_, line)| line.trim() != "\"scripts\": {").skip(1);
    let inside = inside.take_while(|(_, line)| !line.trim().starts_with('}'));
    inside
        .filter_map(|(number, line)| {
            let (name, command) = line.trim().trim_end_matches(',').split_once(": ")?;
            Some((number, name.trim_matches('"'), command.trim_matches('"')))
        })
        .collect()
}

/// Why a script's command cannot work in a checkout.
fn missing(root: &Path, targets: &BTreeSet<&str>, command: &str) -> Option<String> {
    let mut words = command.split_whitespace();
    match (words.next().unwrap_or_default(), words.next()) {
        ("make", Some(target)) if targets.contains(target) => None,
        ("make", target) => Some(format!("make has no target {}", target.unwrap_or("of that name"))),
        ("docker", _) => (!root.join("Dockerfile").is_file()).then(|| "there is no Dockerfile".to_owned()),
        (program, _) => (!root.join(program).is_file()).then(|| format!("{program} is no file")),
    }
}

/// Commands in a line of a document that are not there. Prose may say "make" too: only what stands in code or begins
/// a line counts.
fn unknown(line: &str, targets: &BTreeSet<&str>, scripts: &BTreeSet<&str>) -> Vec<String> {
    let code = line.split('`').skip(1).step_by(2);
    let typed = code.chain([line]).filter_map(|text| {
        let mut words = text.split_whitespace();
        let program = words.next()?;
        Some((program, words.next()?, words.next()))
    });
    typed
        .filter_map(|(program, first, second)| match program {
            "make" => {
                (names(first) && !targets.contains(first)).then(|| format!("make has no target {first}"))
            }
            "npm" if WITHOUT_RUN.contains(&first) => {
                (!scripts.contains(first)).then(|| format!("{PACKAGE} has no script {first}"))
            }
            "npm" if first == "run" => second
                .filter(|name| !scripts.contains(name))
                .map(|name| format!("{PACKAGE} has no script {name}")),
            _ => None,
        })
        .collect()
}

fn names(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_to_be_typed_is_there() {
        let (targets, scripts) = (BTreeSet::from(["run", "test"]), BTreeSet::from(["start", "dev"]));
        let check = |line: &str, expected: usize| {
            assert_eq!(unknown(line, &targets, &scripts).len(), expected, "{line}");
        };
        check("make run", 0);
        check("`make gone` and `npm start`, `npm run dev`", 1);
        check("npm test", 1);
        check("`npm run gone`", 1);
        check("make gone64", 1);
        check("to make sense of it", 0);
        check("make 64 of it", 0);
        check("npm install -g node", 0);
    }

    #[test]
    fn scripts_and_targets_are_found_where_they_are_defined() {
        let package =
            "{\n  \"name\": \"x\",\n  \"scripts\": {\n    \"a\": \"make b\",\n    \"c:d\": \"e/f\"\n  }\n}\n";
        assert_eq!(scripts(package), [(4, "a", "make b"), (5, "c:d", "e/f")]);
        let makefile = "A := b\nrun: rust ## x\n\techo no:\ntest-here:\nMAKE ?= x\n";
        assert_eq!(targets(makefile).collect::<Vec<_>>(), ["run", "test-here"]);
    }
}
