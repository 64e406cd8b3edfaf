//! What tracking must leave as it was in a process: its descriptors, what its mappings are, its timers, and what its threads
//! do with signals.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{ensure, Context, Result};

use crate::framework::Host;

/// Of each process of our programs: descriptors but for connections, which come and go, mappings with their flags, timers, and
/// of each thread which signals it blocks, ignores and catches.
const LOOK: &str = r#"
for process in /proc/[0-9]*; do
  case $(readlink $process/exe) in
    */fastmig-test-programs)
      pid=${process#/proc/}
      for fd in $process/fd/*; do echo "fd $pid ${fd##*/} $(readlink $fd)"; done | grep -v ' socket:'
      sed "s/^/timer $pid /" $process/timers
      for task in $process/task/*; do
        echo "signals ${task##*/}" $(sed -n 's/^Sig\(Blk\|Ign\|Cgt\):[^0-9a-f]*//p' $task/status)
      done
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
    timers: BTreeSet<String>,
    /// By thread; those that answer connections come and go.
    signals: BTreeMap<String, String>,
}

impl Snapshot {
    pub(super) fn of(host: &Host) -> Result<Self> {
        let told = host.sh(LOOK).ok()?;
        let all = |kind: &'static str| told.lines().filter_map(move |line| line.strip_prefix(kind));
        let [descriptors, timers] = ["fd ", "timer "].map(|kind| all(kind).map(str::to_owned).collect());
        let thread = |line: &str| line.split_once(' ').map(|(id, masks)| (id.to_owned(), masks.to_owned()));
        let signals = all("signals ").filter_map(thread).collect();
        let mapping = |line: &str| {
            let mut words = line.strip_prefix("map ")?.splitn(3, ' ');
            let name = format!("{} {}", words.next()?, words.next()?);
            Some((name, words.next()?.trim().to_owned()))
        };
        let mappings: BTreeMap<_, _> = told.lines().filter_map(mapping).collect();
        ensure!(!mappings.is_empty(), "there is no process on host {}: {told}", host.name());
        Ok(Self { descriptors, mappings, timers, signals })
    }

    /// Fails unless `now` is the same. Mappings that have come or gone are the application's own doing.
    pub(super) fn require_same(&self, now: &Self) -> Result<()> {
        ensure!(
            self.descriptors == now.descriptors,
            "descriptors were {:?} and are {:?}",
            self.descriptors,
            now.descriptors
        );
        ensure!(self.timers == now.timers, "timers were {:?} and are {:?}", self.timers, now.timers);
        let both = self
            .signals
            .iter()
            .filter_map(|(thread, before)| Some((thread, before, now.signals.get(thread)?)));
        let mut threads = 0;
        for (thread, before, now) in both {
            ensure!(before == now, "the signals of thread {thread} were {before} and are {now}");
            threads += 1;
        }
        ensure!(threads > 0, "no thread is there that was: {:?}, then {:?}", self.signals, now.signals);
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
