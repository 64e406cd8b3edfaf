//! A change as people read it.

use similar::TextDiff;

/// What changes in the file `name`, in the form of `diff -u`.
pub(crate) fn unified(name: &str, before: &str, after: &str) -> String {
    TextDiff::from_lines(before, after).unified_diff().header(name, name).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_is_shown() {
        let before = (1..30).map(|n| format!("line {n}\n")).collect::<String>();
        let diff = unified("/etc/x", &before, &(before.clone() + "new\n"));
        assert!(diff.starts_with("--- /etc/x\n+++ /etc/x\n@@"), "{diff}");
        assert!(diff.contains("+new\n") && !diff.contains("line 3\n"), "{diff}");
    }
}
