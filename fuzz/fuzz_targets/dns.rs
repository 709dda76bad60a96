//! Questions for names.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mhnos_network::fuzzing::dns(bytes));
