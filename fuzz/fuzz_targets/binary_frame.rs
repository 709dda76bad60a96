//! Binary frames.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mhnos_protocol::fuzzing::binary_frame(bytes));
