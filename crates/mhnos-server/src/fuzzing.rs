//! The targets of `fuzz/` in this crate.

pub use crate::{door::fuzzing::door, http::fuzzing::front, preview::fuzzing::preview};

/// A reader of HTTP that is not the service's.
#[path = "../../../fuzz/reference/http.rs"]
pub(crate) mod reference;

/// Runs to the end what may take no time that counts.
pub(crate) fn run<T>(what: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    }
    RUNTIME.with(|runtime| runtime.block_on(what))
}

/// The status of the answer that begins here.
pub(crate) fn status(answer: &[u8]) -> u16 {
    let code = answer.split(|byte| *byte == b' ').nth(1).expect("a status line");
    str::from_utf8(code).expect("text").parse().expect("a number")
}
