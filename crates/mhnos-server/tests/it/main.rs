//! The bridge as a client meets it: over real sockets, with real programs on pipes, and a small keeper in
//! place of the real one. What needs sandboxes, terminals or the binary is tested end to end elsewhere.

#![allow(clippy::disallowed_methods)] // the small keeper starts programs

use std::fmt::Write;

mod bad_input;
mod files;
mod keeper;
mod life;
mod output;
mod requests;
mod web_os;

/// The lines that `seq` prints.
fn lines(numbers: impl Iterator<Item = u32>) -> String {
    numbers.fold(String::new(), |mut text, number| {
        writeln!(text, "{number}").expect("into memory");
        text
    })
}
