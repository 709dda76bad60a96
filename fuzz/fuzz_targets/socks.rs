//! Wishes for connections: SOCKS, and destinations as text.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mhnos_network::fuzzing::socks(bytes));
