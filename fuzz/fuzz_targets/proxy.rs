//! Requests of programs to the proxy, and what servers answer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mhnos_network::fuzzing::proxy(bytes));
