//! What AppArmor holds a restored process to: what it holds the container's applications to. An image of a host without AppArmor has no
//! label for it, and what CRIU gives none keeps CRIU's own.

use crate::tree::apparmor;

/// The label of any of these threads of a process that is not the one `wanted`.
pub(super) fn other(threads: impl Iterator<Item = i32>, wanted: &str) -> Option<String> {
    let mut labels = threads.map(apparmor::label_of);
    labels.find(|label| label.as_deref() != Some(wanted)).map(|label| described(label.as_deref(), wanted))
}

fn described(label: Option<&str>, wanted: &str) -> String {
    match label {
        Some(label) => format!("the AppArmor profile {label} in place of {wanted}"),
        None => format!("no AppArmor profile, where its container has {wanted}"),
    }
}
