//! Which capabilities CRIU gets: what its work on this container needs, and nothing that only might be handy.
//! `docs/capabilities.md` is the table, each line of which a test of the suite `security` holds.

use std::collections::BTreeSet;
use std::path::Path;

use caps::{CapSet, Capability, CapsHashSet};
use procfs::process::Process;

use crate::{Config, Error};

/// What a dump by CRIU 4.2 needs.
const TO_DUMP: &[Capability] = &[
    Capability::CAP_SYS_ADMIN,       // suspending and reading seccomp filters
    Capability::CAP_SYS_PTRACE,      // seizing tasks
    Capability::CAP_NET_ADMIN,       // socket diagnosis, TCP repair, the network lock
    Capability::CAP_DAC_READ_SEARCH, // open_by_handle_at, for what is watched
    Capability::CAP_DAC_OVERRIDE,    // a name in other users' directories for a file that has lost its own
    Capability::CAP_IPC_OWNER,       // System V shared memory of other users
    Capability::CAP_SYS_RESOURCE,    // limits of other users' tasks
];

/// What a restore by CRIU 4.2 needs.
const TO_RESTORE: &[Capability] = &[
    Capability::CAP_SYS_ADMIN, // clone3 with set_tid, map_files, prctl(PR_SET_MM), namespaces
    Capability::CAP_NET_ADMIN, // its own socket's buffers; TCP repair, and the network lock
    Capability::CAP_SETUID,    // to become each user that the application was
    Capability::CAP_SETGID,    // and each group
    Capability::CAP_SETPCAP,   // the bounding set and the secure bits
    Capability::CAP_SYS_CHROOT, // the root of each process
    Capability::CAP_SYS_TIME,  // the clock offsets of the restored time namespace
    Capability::CAP_DAC_OVERRIDE, // files of other users
    Capability::CAP_CHOWN,     // deleted files, which are made anew
    Capability::CAP_FOWNER,    // their times and modes
    Capability::CAP_MKNOD,     // deleted device nodes
    Capability::CAP_IPC_LOCK,  // memory that is locked, beyond FastMig\'s own limit
    Capability::CAP_SYS_RESOURCE, // limits of other users' tasks
];

/// What a restore needs besides where the host lets nobody trace without.
const TO_TRACE: Capability = Capability::CAP_SYS_PTRACE;

/// What it needs besides where memory may follow the processes: CRIU opens a userfaultfd in each, for faults in the kernel too.
const TO_MISS_MEMORY: Capability = Capability::CAP_SYS_PTRACE;

/// What it needs besides where it is called by somebody who is nice: restored processes begin as CRIU is.
const TO_BE_LESS_NICE: Capability = Capability::CAP_SYS_NICE;

/// How far the host restricts tracing: from 2 on it takes a capability, also among one's own children.
const TRACING: &str = "/proc/sys/kernel/yama/ptrace_scope";

/// Whether all memory is there when processes are restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    IsThere,
    MayFollow,
}

/// For a dump.
pub(crate) fn for_dump(config: &Config) -> CapsHashSet {
    held(TO_DUMP.iter().copied().collect(), config)
}

/// For a restore into the container whose PID 1 is `init`: what CRIU hands on it must hold itself.
pub(crate) fn for_restore(init: i32, config: &Config, memory: Memory) -> Result<CapsHashSet, Error> {
    let allowed = members(allowed_in(init)?);
    let tracing = to_trace();
    let missing = (memory == Memory::MayFollow).then_some(TO_MISS_MEMORY);
    let nice = are_we_nice().then_some(TO_BE_LESS_NICE);
    let besides = tracing.into_iter().chain(missing).chain(nice).chain(allowed);
    Ok(held(TO_RESTORE.iter().copied().chain(besides).collect(), config))
}

fn are_we_nice() -> bool {
    Process::myself().and_then(|process| process.stat()).is_ok_and(|stat| stat.nice > 0)
}

/// What a restore takes where the host lets nobody trace without.
pub(crate) fn to_trace() -> Option<Capability> {
    is_tracing_restricted().then_some(TO_TRACE)
}

fn is_tracing_restricted() -> bool {
    let scope = std::fs::read_to_string(TRACING).ok();
    scope.and_then(|scope| scope.trim().parse::<u8>().ok()).is_some_and(|scope| scope >= 2)
}

/// What the container whose PID 1 is `init` allows at most.
pub(crate) fn allowed_in(init: i32) -> Result<u64, Error> {
    let status = Process::new(init)
        .and_then(|process| process.status())
        .map_err(|e| Error::io("read the capabilities of", Path::new("/proc"), std::io::Error::other(e)))?;
    Ok(status.capbnd.unwrap_or(0))
}

/// The names of a set's members, such as `CAP_KILL`.
pub(crate) fn names(set: u64) -> BTreeSet<String> {
    members(set).map(|capability| capability.to_string()).collect()
}

fn members(set: u64) -> impl Iterator<Item = Capability> {
    caps::all().into_iter().filter(move |capability| set & capability.bitmask() != 0)
}

/// Without what the operator withholds. Nobody can hand on what it lacks itself; CRIU says what it then cannot do.
pub(crate) fn held(wanted: CapsHashSet, config: &Config) -> CapsHashSet {
    let withheld = config.confinement.withheld();
    let ours = caps::read(None, CapSet::Permitted).unwrap_or_default();
    wanted.intersection(&ours).filter(|capability| !withheld.contains(*capability)).copied().collect()
}

/// What a dump or restore may need and this process lacks.
pub(crate) fn missing() -> Vec<Capability> {
    let ours = caps::read(None, CapSet::Permitted).unwrap_or_default();
    let mut missing: Vec<_> = all().into_iter().filter(|capability| !ours.contains(capability)).collect();
    missing.sort_by_key(ToString::to_string);
    missing
}

/// What any dump or restore may need.
fn all() -> CapsHashSet {
    let listed = TO_DUMP.iter().chain(TO_RESTORE).copied();
    listed.chain([TO_TRACE, TO_BE_LESS_NICE]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = include_str!("../../docs/capabilities.md");

    /// The capabilities that the table has for an operation.
    fn listed(operation: &str) -> BTreeSet<String> {
        let lines = TABLE.lines().filter(|line| line.starts_with("| CAP_"));
        let cells = lines.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
        cells.filter(|cells| cells[2] == operation).map(|cells| cells[1].to_owned()).collect()
    }

    #[test]
    fn what_is_given_stands_in_the_table_with_its_test() {
        let names =
            |list: &[Capability]| -> BTreeSet<String> { list.iter().map(ToString::to_string).collect() };
        // No test can take it away: see there.
        let besides = BTreeSet::from([Capability::CAP_SYS_RESOURCE.to_string()]);
        let dump = names(TO_DUMP);
        assert_eq!(dump.difference(&besides).cloned().collect::<BTreeSet<_>>(), listed("dump"));
        let restore = names(TO_RESTORE);
        assert_eq!(restore.difference(&besides).cloned().collect::<BTreeSet<_>>(), listed("restore"));
        assert_eq!(names(crate::inside::TO_DUMP), listed("dump inside"));
        assert_eq!(names(crate::inside::TO_RESTORE), listed("restore inside"));
    }
}
