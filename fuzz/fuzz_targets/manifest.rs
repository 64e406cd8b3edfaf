//! The manifest of a checkpoint, on disk or from the other host.
#![no_main]

use std::path::Path;

use fastmig_engine::image::Manifest;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let from = Path::new("fuzz");
    if let Ok(manifest) = Manifest::parse(bytes, from) {
        let value = serde_json::to_value(&manifest).expect("a manifest is JSON");
        let again = Manifest::from_value(&value, from).expect("a manifest is read again");
        assert_eq!(again, manifest);
    }
});
