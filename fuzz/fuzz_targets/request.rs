//! Text frames from clients, and every request.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mhnos_protocol::fuzzing::request(bytes));
