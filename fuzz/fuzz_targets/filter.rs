//! The compiler of system call filters.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mhnos_sandbox::fuzzing::filter(bytes));
