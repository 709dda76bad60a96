//! Messages from a server to our client.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mhnos_protocol::fuzzing::server_message(bytes));
