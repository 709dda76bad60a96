//! Connections to the service: the head of the first request.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mhnos_server::fuzzing::front(bytes));
