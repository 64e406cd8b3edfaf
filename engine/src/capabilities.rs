//! Which capabilities CRIU gets: what its work needs, and nothing that only might be handy.

use std::collections::BTreeSet;
use std::path::Path;

use caps::{CapSet, Capability, CapsHashSet};
use procfs::process::Process;

use crate::{Config, Error};

/// What both a dump and a restore need of CRIU 4.2.
const ALWAYS: &[Capability] = &[
    Capability::CAP_CHECKPOINT_RESTORE, // map_files, clone3 with set_tid, prctl(PR_SET_MM)
    Capability::CAP_SYS_PTRACE,         // seizing tasks of other users, kcmp
    Capability::CAP_SYS_ADMIN,          // suspending and reading seccomp filters, mount ids
    Capability::CAP_NET_ADMIN,          // TCP repair, socket diagnosis, the network lock
    Capability::CAP_DAC_READ_SEARCH,    // open_by_handle_at for inotify and deleted files
    Capability::CAP_DAC_OVERRIDE,       // files of other users
    Capability::CAP_SYS_RESOURCE,       // limits of other users' tasks
    Capability::CAP_KILL,               // stopping tasks of other users
    Capability::CAP_IPC_OWNER,          // System V shared memory of other users
];

/// What a restore needs besides: to become each user that the application was.
const TO_RESTORE: &[Capability] = &[
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_CHOWN,
    Capability::CAP_FOWNER,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_SYS_NICE,
    Capability::CAP_IPC_LOCK,
    Capability::CAP_MKNOD,
    Capability::CAP_LEASE,
    Capability::CAP_SYS_TIME, // the clock offsets of the restored time namespace
];

/// For a dump.
pub(crate) fn for_dump(config: &Config) -> CapsHashSet {
    held(ALWAYS.iter().copied().collect(), config)
}

/// For a restore into the container whose PID 1 is `init`: what CRIU hands on it must hold itself.
pub(crate) fn for_restore(init: i32, config: &Config) -> Result<CapsHashSet, Error> {
    let allowed = members(allowed_in(init)?);
    Ok(held(ALWAYS.iter().chain(TO_RESTORE).copied().chain(allowed).collect(), config))
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
fn held(wanted: CapsHashSet, config: &Config) -> CapsHashSet {
    let withheld = config.confinement.withheld();
    let ours = caps::read(None, CapSet::Permitted).unwrap_or_default();
    wanted.intersection(&ours).filter(|capability| !withheld.contains(*capability)).copied().collect()
}

/// What a dump or restore may need and this process lacks.
pub(crate) fn missing() -> Vec<Capability> {
    let ours = caps::read(None, CapSet::Permitted).unwrap_or_default();
    let mut missing: Vec<_> =
        ALWAYS.iter().chain(TO_RESTORE).copied().filter(|c| !ours.contains(c)).collect();
    missing.sort_by_key(ToString::to_string);
    missing
}
