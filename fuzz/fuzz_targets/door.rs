//! Host and Origin headers.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mhnos_server::fuzzing::door(bytes));
