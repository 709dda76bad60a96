//! Trees that programs made to harm whoever looks at them: what they cost is bounded, and the bound is named.

use std::{fs::File, os::fd::OwnedFd};

use mhnos_workspace::{PullError, PullSettings};
use rustix::fs::{Mode, OFlags, mkdirat, openat};

use crate::tree::Tree;

/// The largest size this file system takes.
fn sparse(tree: &Tree, path: &str) -> u64 {
    let file = File::create(tree.path(path)).unwrap();
    let sizes = (33..63).rev().map(|bits| (1 << bits) - 1);
    sizes.into_iter().find(|size| file.set_len(*size).is_ok()).expect("a sparse file")
}

#[test]
fn a_sparse_file_of_any_size_is_refused_before_it_is_read() {
    let tree = Tree::new();
    let size = sparse(&tree, "sparse");
    let error = tree.workspace.survey(&PullSettings::default()).unwrap_err();
    assert!(matches!(error, PullError::TooLarge { size: told, .. } if told == size), "{size}: {error}");
    // Two of them are more than a number holds.
    for name in ["b", "c", "d"] {
        sparse(&tree, name);
    }
    let error = tree.workspace.survey(&PullSettings::default()).unwrap_err();
    assert!(matches!(error, PullError::TooLarge { .. }), "{error}");
}

#[test]
fn a_tree_deeper_than_any_path_is_refused_by_name() {
    let tree = Tree::new();
    let name = "d".repeat(200);
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at: OwnedFd = File::open(tree.path("")).unwrap().into();
    for _ in 0..100 {
        mkdirat(&at, name.as_str(), Mode::RWXU).unwrap();
        at = openat(&at, name.as_str(), flags, Mode::empty()).unwrap();
    }
    let error = tree.workspace.survey(&PullSettings::default()).unwrap_err();
    assert!(matches!(error, PullError::TooDeep { max: 64, .. }), "{error}");
    // What is told of it fits a message.
    assert!(error.to_string().len() < 1000, "{error}");
}

#[test]
fn a_directory_of_a_hundred_thousand_files_is_refused_by_name() {
    let tree = Tree::new();
    let first = tree.path("0");
    File::create(&first).unwrap();
    // Names of one file: cheaper to make, and as many to look at. A file has 65,000 names at most.
    for number in 1..=100_000 {
        let of = tree.path(if number < 60_000 { "0" } else { "60000" });
        if number == 60_000 {
            File::create(of).unwrap();
        } else {
            std::fs::hard_link(of, tree.path(&number.to_string())).unwrap();
        }
    }
    let error = tree.workspace.survey(&PullSettings::default()).unwrap_err();
    assert!(matches!(error, PullError::TooMany { max: 100_000 }), "{error}");
}

#[test]
fn names_of_every_kind_come_as_they_are() {
    let tree = Tree::new();
    let long = "n".repeat(255);
    let names = [
        "new\nline",
        "tab\t",
        "\u{1b}[2J\u{7}",
        "\u{202e}gpj.exe",
        " ",
        "-rf",
        "\\",
        "\u{feff}",
        "e\u{301}",
        &long,
    ];
    for name in names {
        tree.file(name, "x");
    }
    let survey = tree.workspace.survey(&PullSettings::default()).unwrap();
    assert_eq!((survey.files, survey.passed_over), (names.len() as u64, 0));
    let mut expected = names.to_vec();
    expected.sort_unstable();
    let mut pull = tree.workspace.pull(PullSettings::default()).unwrap();
    let mut found = Vec::new();
    let mut buffer = [0; 16];
    while let Some(piece) = pull.next(&mut buffer).unwrap() {
        if let mhnos_workspace::Piece::File { path, .. } = piece {
            found.push(path.to_owned());
        }
    }
    found.sort_unstable();
    assert_eq!(found, expected);
}
