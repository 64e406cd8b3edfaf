//! What tracking must leave as it was in a process: its descriptors, and what its mappings are.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{ensure, Context, Result};

use crate::framework::Host;

/// Of each process of our programs: descriptors but for connections, which come and go, and mappings with their flags.
const LOOK: &str = r#"
for process in /proc/[0-9]*; do
  case $(readlink $process/exe) in
    */fastmig-test-programs)
      pid=${process#/proc/}
      for fd in $process/fd/*; do echo "fd $pid ${fd##*/} $(readlink $fd)"; done | grep -v ' socket:'
      awk -v pid=$pid '/^[0-9a-f]+-[0-9a-f]+ / { range = $1 }
        /^VmFlags:/ { sub(/^VmFlags: */, ""); print "map", pid, range, $0 }' $process/smaps;;
  esac
done
"#;

/// Flags of a mapping that is tracked.
const TRACKED: [&str; 2] = ["uw", "um"];

/// All processes of our programs on a host.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    descriptors: BTreeSet<String>,
    mappings: BTreeMap<String, String>,
}

impl Snapshot {
    pub(super) fn of(host: &Host) -> Result<Self> {
        let told = host.sh(LOOK).ok()?;
        let descriptors =
            told.lines().filter_map(|line| line.strip_prefix("fd ")).map(str::to_owned).collect();
        let mapping = |line: &str| {
            let mut words = line.strip_prefix("map ")?.splitn(3, ' ');
            let name = format!("{} {}", words.next()?, words.next()?);
            Some((name, words.next()?.trim().to_owned()))
        };
        let mappings: BTreeMap<_, _> = told.lines().filter_map(mapping).collect();
        ensure!(!mappings.is_empty(), "there is no process on host {}: {told}", host.name());
        Ok(Self { descriptors, mappings })
    }

    /// Fails unless `now` is the same. Mappings that have come or gone are the application's own doing.
    pub(super) fn require_same(&self, now: &Self) -> Result<()> {
        ensure!(
            self.descriptors == now.descriptors,
            "descriptors were {:?} and are {:?}",
            self.descriptors,
            now.descriptors
        );
        let mut same = 0;
        for (mapping, flags) in &now.mappings {
            let tracked = flags.split(' ').any(|flag| TRACKED.contains(&flag));
            ensure!(!tracked, "mapping {mapping} is still tracked: {flags}");
            if let Some(before) = self.mappings.get(mapping) {
                ensure!(before == flags, "the flags of mapping {mapping} were {before} and are {flags}");
                same += 1;
            }
        }
        let most = self.mappings.len().max(1);
        (same * 2 > most).then_some(()).with_context(|| format!("only {same} of {most} mappings are there"))
    }
}
