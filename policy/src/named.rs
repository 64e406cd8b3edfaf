//! The policies that come with FastMig.

/// Their names, and the files that they would be.
const POLICIES: [(&str, &str); 2] = [
    ("default", include_str!("../policies/default.toml")),
    ("paper", include_str!("../policies/paper.toml")),
];

/// The names that need no file.
pub const NAMES: [&str; 2] = [POLICIES[0].0, POLICIES[1].0];

/// The text of one.
pub(crate) fn text(name: &str) -> Option<&'static str> {
    POLICIES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}
