//! What the source says of an application ahead of it.
#![no_main]

use fastmig_engine::passport::Passport;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(passport) = Passport::parse(bytes) {
        let again = Passport::read(&passport.to_value()).expect("a passport is read again");
        assert_eq!(again, passport);
    }
});
