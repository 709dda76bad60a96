//! Datagrams on the keeper's channel.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mhnos_keeper::fuzzing::channel(bytes));
