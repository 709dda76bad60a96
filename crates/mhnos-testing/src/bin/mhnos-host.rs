//! Starts a program on a kind of host: `mhnos-host KIND PROGRAM [ARGUMENT]...`. It becomes that program, so the process
//! number stays the same.

#![allow(clippy::disallowed_methods)] // starting a program is what it is for

use std::{os::unix::process::CommandExt, process::Command};

use mhnos_testing::host::{Host, asked};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|word| word == asked::ANSWER) {
        return asked::answer(&arguments[2..]);
    }
    let [_, kind, program, rest @ ..] = &arguments[..] else {
        panic!("usage: mhnos-host KIND PROGRAM [ARGUMENT]...");
    };
    let host = Host::named(kind);
    host.begin();
    host.refuse();
    let error = Command::new(program).args(rest).exec();
    panic!("cannot start {program}: {error}");
}
