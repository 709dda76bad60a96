//! The bridge as a client meets it: over real sockets, with real programs on pipes, and a small keeper in
//! place of the real one. What needs sandboxes or the binary is tested end to end elsewhere.

#![allow(clippy::disallowed_methods)] // the small keeper starts programs

use std::fmt::Write;

mod bad_input;
mod files;
mod keeper;
mod life;
mod output;
mod requests;
mod web_os;

/// Stops the clock until what is returned is dropped: what waits for a time to pass does not come, all else does. (The
/// runtime moves a clock that stands still on when it has nothing to do, but not while something blocks.)
fn no_time_passes() -> std::sync::mpsc::Sender<()> {
    let (stop, stopped) = std::sync::mpsc::channel();
    drop(tokio::task::spawn_blocking(move || stopped.recv()));
    tokio::time::pause();
    stop
}

/// The lines that `seq` prints.
fn lines(numbers: impl Iterator<Item = u32>) -> String {
    numbers.fold(String::new(), |mut text, number| {
        writeln!(text, "{number}").expect("into memory");
        text
    })
}
