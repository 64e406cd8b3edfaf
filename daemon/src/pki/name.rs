//! What hosts and people are called: a name that a certificate, a URL and a file can hold.

use super::PkiError;

/// Checks a name.
///
/// # Errors
/// When it could not be in a certificate.
pub fn check(name: &str) -> Result<(), PkiError> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let labels = || name.split('.').all(|label| label.starts_with(ends) && label.ends_with(ends));
    if name.len() <= 63 && name.chars().all(allowed) && labels() {
        return Ok(());
    }
    Err(PkiError::BadName { name: name.chars().take(80).collect() })
}

/// This host's own, as the kernel knows it.
#[must_use]
pub fn of_this_host() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    name.to_string_lossy().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_are_safe_everywhere_are_taken() {
        for good in ["a", "host-b", "node1.rack2", "7"] {
            assert!(check(good).is_ok(), "{good}");
        }
        let long = "x".repeat(64);
        for bad in ["", ".", "a.", "-a", "a-", "a..b", "A", "a b", "a/b", "ä", "../x", "a\0", &long] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
