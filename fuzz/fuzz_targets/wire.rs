//! Whatever arrives on a connection.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fastmig_migrate::fuzzing::head(bytes);
    fastmig_migrate::fuzzing::message(bytes);
    fastmig_migrate::fuzzing::connection(bytes);
});
