//! A program in the workspace flips a name between a directory and a link to the outside while the API works
//! through that name. The naive check (realpath, then open) is run beside it: it must escape, or the race was
//! not one and the result would mean nothing.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use mhnos_workspace::{Content, Entry};
use rustix::fs::{CWD, RenameFlags};

use crate::tree::Tree;

struct Outcome {
    naive_escapes: u32,
    escapes: u32,
    inside: u32,
}

/// `flip/data` is `inside` or, through the link, `outside`, several hundred thousand times a second.
fn race(least: u32, most: u32) -> Outcome {
    let tree = Tree::new();
    fs::create_dir(tree.beside("out")).unwrap();
    fs::write(tree.beside("out/data"), "outside").unwrap();
    tree.file("flip/data", "inside");
    tree.link("other", "../out");
    let root = fs::canonicalize(tree.path("")).unwrap();
    let over = AtomicBool::new(false);
    let mut outcome = Outcome { naive_escapes: 0, escapes: 0, inside: 0 };
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let (one, two) = (tree.path("flip"), tree.path("other"));
                rustix::fs::renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let base = tree.workspace.root();
        for round in 0..most {
            if round >= least && outcome.naive_escapes > 0 && outcome.inside > 0 {
                break;
            }
            let naive = fs::canonicalize(tree.path("flip/data"))
                .ok()
                .filter(|path| path.starts_with(&root))
                .and_then(|_| fs::read(tree.path("flip/data")).ok());
            outcome.naive_escapes += u32::from(naive.as_deref() == Some(b"outside"));
            match tree.workspace.read("flip/data", &base, 100).as_deref() {
                Ok(b"outside") => outcome.escapes += 1,
                Ok(_) => outcome.inside += 1,
                Err(_) => {}
            }
            let entry = Entry { path: "flip/pushed", content: Content::File(b"pushed"), mtime_ms: None };
            let _ = tree.workspace.push_one(&entry);
        }
        over.store(true, Ordering::Relaxed);
    });
    outcome.escapes += u32::from(tree.beside("out/pushed").exists());
    // Also a temporary file would have been an escape.
    outcome.escapes += fs::read_dir(tree.beside("out")).unwrap().count() as u32 - 1;
    outcome
}

fn check(outcome: &Outcome) {
    assert!(outcome.naive_escapes > 0, "the control did not escape: there was no race");
    assert!(outcome.inside > 0, "nothing was ever read: refusing everything is no confinement");
    assert_eq!(outcome.escapes, 0);
}

#[test]
fn flipped_links_never_lead_out() {
    check(&race(5_000, 2_000_000));
}

#[test]
#[ignore = "takes a minute: make test-race"]
fn flipped_links_never_lead_out_in_200_000_operations() {
    let outcome = race(100_000, 100_000);
    println!(
        "200,000 operations: a check by realpath escaped {} of 100,000 times, openat2 {}; {} reads inside",
        outcome.naive_escapes, outcome.escapes, outcome.inside
    );
    check(&outcome);
}
