//! Requests for previews, and what processes answer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mhnos_server::fuzzing::preview(bytes));
