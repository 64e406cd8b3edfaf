//! A chunk of an image.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fastmig_migrate::fuzzing::chunk(bytes));
