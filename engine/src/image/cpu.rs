//! What programs may have seen of the CPU.

use std::collections::BTreeSet;

/// The instruction set extensions of this machine's CPU: what a program may have seen and relied on.
pub(crate) fn cpu_features() -> BTreeSet<String> {
    const EXTENSIONS: &[&str] =
        &["sse", "ssse", "avx", "aes", "bmi", "fma", "sha", "vaes", "vpclmul", "gfni", "amx", "xsave", "adx"];
    const EXACT: &[&str] = &[
        "abm",
        "erms",
        "fsrm",
        "f16c",
        "movbe",
        "pclmulqdq",
        "pku",
        "popcnt",
        "rdrand",
        "rdseed",
        "rtm",
        "lzcnt",
    ];
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        matches!(name.trim(), "flags" | "Features").then(|| value.to_owned())
    });
    flags
        .unwrap_or_default()
        .split_whitespace()
        .filter(|flag| EXACT.contains(flag) || EXTENSIONS.iter().any(|e| flag.starts_with(e)))
        .map(str::to_owned)
        .collect()
}
