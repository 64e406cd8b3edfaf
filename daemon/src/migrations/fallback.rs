//! What is done about memory that travelled in rounds and is in doubt: CRIU dumps it. Of the mappings that the doubt is about,
//! where it says so; of all of them, where it does not, or another doubt comes.

use fastmig_api::migration::{LeftMapping, MigrationReport};
use fastmig_migrate::ends::{Doubt, InDoubt};

/// All of it travels in the freeze.
const WHOLE: &str = "memory travels while the application stands still, for that in rounds was in doubt";
/// Some of it does.
const SOME: &str = "CRIU dumps the memory of some mappings, for that in rounds was in doubt";
/// More than these are not left one by one.
const MOST: usize = 256;

/// What doubts have led to so far.
#[derive(Debug, Default)]
pub(super) struct Fallback {
    /// No rounds any more.
    pub(super) is_whole: bool,
    /// Mappings that are left to CRIU, and why.
    pub(super) left: Vec<(InDoubt, String)>,
    messages: Vec<String>,
}

impl Fallback {
    /// Takes note of a doubt; what is said of it.
    pub(super) fn take(&mut self, doubt: Doubt) -> String {
        let Doubt { reason, mappings } = doubt;
        self.is_whole = mappings.is_empty() || mappings.len() > MOST || !self.left.is_empty();
        let message = if self.is_whole {
            self.left.clear();
            format!("{WHOLE}: {reason}")
        } else {
            self.left = mappings.into_iter().map(|mapping| (mapping, reason.clone())).collect();
            let one = |(left, _): &(InDoubt, String)| {
                format!("{:x}-{:x} of process {}", left.start, left.end, left.process)
            };
            let names: Vec<String> = self.left.iter().take(8).map(one).collect();
            format!("{SOME} ({}): {reason}", names.join(", "))
        };
        self.messages.push(message.clone());
        message
    }

    /// The report says it, too.
    pub(super) fn tell(&self, report: &mut MigrationReport) {
        report.warnings.extend(self.messages.iter().cloned());
        report.left_to_criu = self.left.iter().map(|(left, why)| left_mapping(left, why)).collect();
    }
}

fn left_mapping(left: &InDoubt, why: &str) -> LeftMapping {
    let InDoubt { process, start, end } = *left;
    LeftMapping { process, start: format!("{start:x}"), end: format!("{end:x}"), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubt(mappings: &[InDoubt]) -> Doubt {
        Doubt { reason: "it was not asked for".into(), mappings: mappings.to_vec() }
    }

    #[test]
    fn the_first_doubt_is_pinned_and_the_second_is_not() {
        let mapping = InDoubt { process: 1001, start: 0x1000, end: 0x9000 };
        let mut fallback = Fallback::default();
        assert!(fallback.take(doubt(&[mapping])).contains("1000-9000 of process 1001"));
        assert!(!fallback.is_whole && fallback.left.len() == 1);
        assert!(fallback.take(doubt(&[mapping])).starts_with(WHOLE));
        assert!(fallback.is_whole && fallback.left.is_empty());
        let mut vague = Fallback::default();
        vague.take(doubt(&[]));
        assert!(vague.is_whole);
    }
}
