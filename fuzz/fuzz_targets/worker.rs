//! Sources of workers.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mhnos_runtimes::fuzzing::worker(bytes));
