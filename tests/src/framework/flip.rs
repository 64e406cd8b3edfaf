//! Damage that is one: what is written over a byte at random is now and then what was there.

/// A shell function that turns every bit of a byte: `flip FILE OFFSET`.
pub const FLIP: &str = r#"flip() {
  byte=$(od -An -tu1 -j "$2" -N 1 "$1")
  printf "\\$(printf %03o $((byte ^ 255)))" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}"#;
