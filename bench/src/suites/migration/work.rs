//! What is moved: a program with so much memory, in so many processes, that rests, reads or writes.

/// One work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) mib: usize,
    pub(super) processes: usize,
    /// MiB each second.
    pub(super) writes: usize,
    pub(super) reads: usize,
}

/// What each of several processes has.
const OF_EACH: usize = 128;
/// MiB that are read or written each second by who does so a lot.
const BUSY: usize = 100;

const fn idle(mib: usize) -> Work {
    Work { mib, processes: 1, writes: 0, reads: 0 }
}

const fn tree(processes: usize) -> Work {
    Work { processes, ..idle(OF_EACH) }
}

const QUICK: &[Work] = &[idle(16), idle(128), idle(1024), writing(1024), tree(16)];
const THOROUGH: &[Work] = &[
    idle(16),
    idle(128),
    idle(512),
    idle(1024),
    idle(4096),
    reading(128),
    reading(1024),
    writing(128),
    writing(1024),
    tree(2),
    tree(4),
    tree(8),
    tree(16),
];

const fn writing(mib: usize) -> Work {
    Work { writes: BUSY, ..idle(mib) }
}

const fn reading(mib: usize) -> Work {
    Work { reads: BUSY, ..idle(mib) }
}

impl Work {
    /// Those of a run.
    pub(super) const fn all(quick: bool) -> &'static [Self] {
        if quick {
            QUICK
        } else {
            THOROUGH
        }
    }

    /// `m128`, `m1024-write`, `p16`.
    pub(super) fn name(&self) -> String {
        let busy = match (self.reads, self.writes) {
            (0, 0) => "",
            (_, 0) => "-read",
            _ => "-write",
        };
        match self.processes {
            1 => format!("m{}{busy}", self.mib),
            many => format!("p{many}{busy}"),
        }
    }

    /// Whether it rests.
    pub(super) const fn is_idle(&self) -> bool {
        self.writes == 0 && self.reads == 0
    }

    /// Whether it is one process that rests.
    pub(super) const fn is_plain(&self) -> bool {
        self.processes == 1 && self.is_idle()
    }

    /// MiB in all.
    pub(super) const fn all_mib(&self) -> usize {
        self.mib * self.processes
    }

    /// The program's arguments.
    pub(super) fn words(&self) -> Vec<String> {
        let numbers = [
            ("--mib", self.mib),
            ("--processes", self.processes),
            ("--writes", self.writes),
            ("--reads", self.reads),
        ];
        let options = numbers.into_iter().flat_map(|(name, number)| [name.to_owned(), number.to_string()]);
        std::iter::once("tick".to_owned()).chain(options).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn works_are_called_by_what_they_have() {
        let names = |quick| Work::all(quick).iter().map(Work::name).collect::<Vec<_>>();
        assert_eq!(names(true), ["m16", "m128", "m1024", "m1024-write", "p16"]);
        let thorough = names(false);
        for name in ["m512", "m4096", "m128-read", "m1024-write", "p2", "p4", "p8", "p16"] {
            assert!(thorough.iter().any(|one| one == name), "{name}");
        }
        assert_eq!(tree(16).words().join(" "), "tick --mib 128 --processes 16 --writes 0 --reads 0");
    }
}
