//! Paths from clients, resolved among links.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mhnos_workspace::fuzzing::path(bytes));
