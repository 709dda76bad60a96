//! Trees that programs made to harm whoever looks at them: what they cost is bounded, and the bound is named.

use std::{
    ffi::OsStr,
    fs::File,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    time::{Duration, Instant},
};

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

/// So many names in one directory, of few files: cheaper to make, and as many to look at. A file has 65,000 names at most.
fn crowd(tree: &Tree, names: u32) {
    const NAMES_OF_ONE: u32 = 60_000;
    for number in 0..names {
        let name = tree.path(&number.to_string());
        let first = number - number % NAMES_OF_ONE;
        if number == first {
            File::create(name).unwrap();
        } else {
            std::fs::hard_link(tree.path(&first.to_string()), name).unwrap();
        }
    }
}

fn refused(tree: &Tree) -> Duration {
    let begun = Instant::now();
    let error = tree.workspace.survey(&PullSettings::default()).unwrap_err();
    assert!(matches!(error, PullError::TooMany { max: 100_000 }), "{error}");
    begun.elapsed()
}

#[test]
fn a_directory_of_a_hundred_thousand_files_is_refused_by_name() {
    let tree = Tree::new();
    crowd(&tree, 100_001);
    refused(&tree);
}

#[test]
#[ignore = "makes a million files: make test-crowd"]
fn a_directory_of_a_million_files_is_refused_by_name_and_counted() {
    let tree = Tree::new();
    crowd(&tree, 1_000_000);
    let took = refused(&tree);
    let workspace = tree.workspace.clone().with_quota(1 << 40);
    let begun = Instant::now();
    let usage = workspace.measure().expect("it has a quota").expect("readable");
    println!(
        "a pull of a million files: refused after {took:.0?}; counted for a quota: {} bytes in {:.0?}",
        usage.used,
        begun.elapsed()
    );
}

#[test]
fn what_is_below_a_directory_of_any_name_counts_for_the_quota() {
    let tree = Tree::new();
    let workspace = tree.workspace.clone().with_quota(1 << 40);
    let empty = workspace.measure().expect("it has a quota").expect("readable").used;
    for name in [b"plain".as_slice(), b"\xff\xfe"] {
        let directory = tree.path("").join(OsStr::from_bytes(name));
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("file"), vec![7; 1 << 20]).unwrap();
    }
    let used = workspace.measure().expect("it has a quota").expect("readable").used - empty;
    assert!(used >= 2 << 20, "{used}");
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
