//! What AppArmor holds a restored process to: what it holds the container's applications to. An image of a host without AppArmor has no
//! label for it, and what CRIU gives none keeps CRIU's own.

use procfs::process::Process;

use crate::tree::apparmor;

/// The label of any thread of process `pid` that no application of PID 1 `init` has; where that is not confined, any will do. What is gone harms
/// nobody.
pub(super) fn other(pid: i32, init: i32) -> Option<String> {
    let wanted = apparmor::of_application(init)?;
    let threads = Process::new(pid).and_then(|process| process.tasks()).into_iter().flatten().flatten();
    let alive = threads.filter(|thread| thread.stat().is_ok_and(|stat| !matches!(stat.state, 'Z' | 'X')));
    let mut labels = alive.map(|thread| apparmor::label_of(thread.tid));
    labels.find(|label| label.as_ref() != Some(&wanted)).map(|label| described(label.as_deref(), &wanted))
}

fn described(label: Option<&str>, wanted: &str) -> String {
    match label {
        Some(label) => format!("the AppArmor profile {label} in place of {wanted}"),
        None => format!("no AppArmor profile, where its container has {wanted}"),
    }
}
