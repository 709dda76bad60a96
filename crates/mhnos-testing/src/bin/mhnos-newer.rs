//! The service as a later version is that speaks another version of the keeper's channel: it becomes the program named
//! `service` beside it, and tells that one of a channel one version older than it is.
//!
//! So a keeper that starts this as its bridge is to it what an older keeper is to a newer bridge. With a file `silence`
//! beside it, it lives and says nothing.

#![allow(clippy::disallowed_methods)] // becoming a program is what it is for

use std::{os::unix::process::CommandExt, process::Command};

fn main() {
    let this = std::env::current_exe().expect("own path");
    while this.with_file_name("silence").exists() {
        std::thread::park();
    }
    let mut arguments = std::env::args();
    let name = arguments.next().unwrap_or_default();
    let older = |argument: String| match argument.strip_prefix("--channel=").map(str::parse::<u32>) {
        Some(Ok(version)) => format!("--channel={}", version - 1),
        _ => argument,
    };
    let service = this.with_file_name("service");
    let error = Command::new(&service).arg0(name).args(arguments.map(older)).exec();
    panic!("cannot start {}: {error}", service.display());
}
