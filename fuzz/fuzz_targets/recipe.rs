//! The container that the source wants made.
#![no_main]

use fastmig_recreate::Recipe;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(recipe) = Recipe::parse(bytes) {
        // With every field written out it may be longer than what is read.
        if let Ok(text) = recipe.to_bytes() {
            assert_eq!(Recipe::parse(&text).expect("a recipe is read again"), recipe);
        }
    }
});
