//! One process, tracked over rounds: what was sent of it, and what that says now.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::direct;
use crate::eligible::{areas, eligible};
use crate::huge::Split;
use crate::inject;
use crate::mappings::{self, Known};
use crate::scan::{Populated, Scanner};
use crate::spans::Spans;
use crate::threads::{program, stack_pointers, start_time};
use crate::watch::{Look, Registration, Watch};
use crate::{Area, Error, Method, Span};

/// What tells a process from a later one with its pid, and from itself after an exec.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    start_time: u64,
    /// Where the kernel has put what a program is told at its start, and the random bytes among it.
    auxiliary: Vec<u8>,
    random: [u8; 16],
}

impl Identity {
    fn of(host: i32) -> Result<Self, Error> {
        const AT_RANDOM: u64 = 25;
        let failed = |e| Error::process("identify the memory", host)(e);
        let auxiliary = std::fs::read(format!("/proc/{host}/auxv")).map_err(failed)?;
        let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
        let random_at = auxiliary.chunks_exact(16).find(|pair| word(&pair[..8]) == AT_RANDOM);
        let mut random = [0; 16];
        if let Some(pair) = random_at {
            let memory = std::fs::File::open(format!("/proc/{host}/mem")).map_err(failed)?;
            // A program may unmap it; then the rest must do.
            let _ = memory.read_exact_at(&mut random, word(&pair[8..]));
        }
        Ok(Self { start_time: start_time(host).map_err(failed)?, auxiliary, random })
    }
}

/// A process under watch.
#[derive(Debug)]
pub(crate) struct Tracked {
    host: i32,
    identity: Identity,
    watch: Watch,
    /// What the receiver has.
    pub(crate) sent: Spans,
    /// Where mappings are new since the last time settled: what was sent there says nothing.
    void: Spans,
    /// What was eligible in the latest round.
    eligible: Vec<Eligible>,
    /// Mappings of it that were compared with the parent's in the latest round.
    pub(crate) pairs: Vec<Span>,
    /// Mappings so different from the parent's that they are sent whole.
    pub(crate) whole: Spans,
    pub(crate) smaps: Vec<u8>,
    /// Huge pages that there were before we came.
    huge: Spans,
}

#[derive(Debug, Clone)]
struct Eligible {
    line: String,
    span: Span,
}

/// One look at a running process.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) scanner: Scanner,
    pub(crate) program: Option<PathBuf>,
    pub(crate) mappings: Vec<(Span, Look)>,
    pub(crate) areas: Vec<Area>,
    pub(crate) stop: Duration,
}

/// One look at a frozen process.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) scanner: Scanner,
    pub(crate) program: Option<PathBuf>,
    pub(crate) mappings: Vec<(Span, Populated)>,
}

impl Tracked {
    /// Begins to watch a running process; how long it was stopped for that.
    pub(crate) fn begin(method: Method, host: i32) -> Result<(Self, Duration), Error> {
        let before = Identity::of(host)?;
        let (watch, stop) = Watch::begin(method, host)?;
        let identity = Identity::of(host)?;
        if before != identity {
            let changed = std::io::ErrorKind::Interrupted;
            return Err(Error::process("keep up with the memory", host)(changed));
        }
        let tracked = Self {
            host,
            identity,
            watch,
            sent: Spans::default(),
            void: Spans::default(),
            eligible: Vec::new(),
            pairs: Vec::new(),
            whole: Spans::default(),
            smaps: Vec::new(),
            huge: Spans::default(),
        };
        Ok((tracked, stop))
    }

    /// Whether `host` still is the process, with the memory, that this was begun for.
    pub(crate) fn is_of(&self, host: i32) -> bool {
        self.host == host && Identity::of(host).is_ok_and(|now| now == self.identity)
    }

    /// Ends the watch; what it has split, if anything.
    pub(crate) fn end(self) -> Option<Split> {
        drop(self.watch);
        let Self { host, identity: Identity { start_time, .. }, huge: spans, .. } = self;
        (!spans.is_empty()).then_some(Split { host, start_time, spans })
    }

    /// Looks at the running process; from here on its writes count anew. After an error nothing is known of it any more.
    /// Mappings that touch `left` are passed over.
    pub(crate) fn survey(&mut self, id: i32, left: &[Span]) -> Result<Survey, Error> {
        let scanner = Scanner::open(self.host).map_err(Error::process("open the page tables", self.host))?;
        let known = self.register(&scanner)?;
        let mut chosen: Vec<&Known> = eligible(&known).into_iter().map(|at| &known[at]).collect();
        let is_left = |span: Span| left.iter().any(|left| span.start < left.end && left.start < span.end);
        chosen.retain(|mapping| !is_left(mapping.span()) && self.watch.holds(&scanner, mapping.span()));
        let spans: Vec<Span> = chosen.iter().map(|mapping| mapping.span()).collect();
        let mut taken = self.watch.take(self.host, &scanner, &spans)?;
        if direct::is_possible(self.host) {
            // Stopped, it is in no call: what devices were writing when we looked is written before anybody reads it.
            let ((), stop) = inject::halted(self.host, || ())?;
            taken.stop = taken.stop.max(stop);
        }
        let looked = chosen.into_iter().zip(taken.looks).filter(|(_, look)| !look.now.guarded);
        self.eligible.clear();
        let mut mappings = Vec::new();
        for (mapping, look) in looked {
            self.eligible.push(Eligible { line: mapping.line.clone(), span: mapping.span() });
            mappings.push((mapping.span(), look));
        }
        self.smaps = mappings::reduced(&known);
        let spans: Vec<Span> = mappings.iter().map(|(span, _)| *span).collect();
        let areas = areas(id, &known, &spans);
        Ok(Survey { scanner, program: program(self.host), mappings, areas, stop: taken.stop })
    }

    /// Has everything watched that is eligible; the mappings as they are then.
    fn register(&mut self, scanner: &Scanner) -> Result<Vec<Known>, Error> {
        let read = || mappings::smaps(self.host).map_err(Error::process("read the mappings", self.host));
        let known = read()?;
        if direct::is_asynchronous(&known) {
            return Err(Error::Asynchronous { process: self.host });
        }
        let mut fresh = false;
        let chosen: Vec<&Known> = eligible(&known).into_iter().map(|at| &known[at]).collect();
        let spans: Vec<Span> = chosen.iter().map(|mapping| mapping.span()).collect();
        let states = self.watch.register_all(scanner, &known, &spans);
        for (mapping, state) in chosen.into_iter().zip(states) {
            let span = mapping.span();
            if state != Registration::Fresh {
                continue;
            }
            fresh = true;
            let replaced = Spans::one(span);
            self.void = self.void.union(&replaced);
            self.whole = self.whole.without(&replaced);
            if mapping.huge > 0 {
                self.huge = self.huge.union(&scanner.huge(span).unwrap_or_default());
            }
        }
        // Registering marks mappings, and may join them with their neighbours.
        if fresh {
            return read();
        }
        Ok(known)
    }

    /// Takes note of a survey, in which the pages `shared` are the parent's: what to send, and what to forget.
    pub(crate) fn settle(&mut self, survey: &Survey, shared: &Spans) -> (Spans, Spans) {
        let looks = || survey.mappings.iter().map(|(_, look)| look);
        let gather = |of: fn(&Look) -> &Spans| looks().flat_map(|look| of(look).iter()).collect::<Spans>();
        let (written, clean) = (gather(|look| &look.written), gather(|look| &look.now.clean));
        let populated = clean.union(&gather(|look| &look.now.written)).without(shared);
        let valid = self.sent.without(&std::mem::take(&mut self.void));
        // Not written, and yet never sent: shared before, or not eligible.
        let missing = clean.without(&valid);
        let send = written.union(&missing).and(&populated);
        let now = valid.and(&populated).union(&send);
        let forgotten = self.sent.without(&now);
        self.sent = now;
        (send, forgotten)
    }

    /// Sees what is written by a shared mapping, in holes too. Whether it does.
    pub(crate) fn watch_shared(&mut self, mapping: Span) -> std::io::Result<bool> {
        let scanner = Scanner::open(self.host)?;
        if !self.watch.watch_shared(&scanner, mapping)? {
            return Ok(false);
        }
        // What a device was to fill before would be seen by nobody.
        Ok(!direct::is_possible(self.host))
    }

    /// What was written by it since; nothing where it is another by now.
    pub(crate) fn shared_written(&self, mapping: Span) -> Option<Spans> {
        let scanner = Scanner::open(self.host).ok()?;
        self.watch.shared_written(&scanner, mapping)
    }

    /// Looks at the process, which is frozen: the mappings of the latest round that have not changed, and are no stack unless
    /// these are wanted.
    pub(crate) fn look_frozen(&self, with_stacks: bool) -> Result<Frozen, Error> {
        let scanner = Scanner::open(self.host).map_err(Error::process("open the page tables", self.host))?;
        let pointers = stack_pointers(self.host)?;
        let now = mappings::maps(self.host).map_err(Error::process("read the mappings", self.host))?;
        if direct::is_asynchronous(&now) {
            return Err(Error::Asynchronous { process: self.host });
        }
        let lines: std::collections::HashSet<&str> =
            now.iter().map(|mapping| mapping.line.as_str()).collect();
        let is_stack =
            |span: Span| !with_stacks && pointers.iter().any(|sp| (span.start..=span.end).contains(sp));
        let spans: Vec<Span> = self
            .eligible
            .iter()
            .filter(|mapping| lines.contains(mapping.line.as_str()) && !is_stack(mapping.span))
            .map(|mapping| mapping.span)
            .filter(|span| self.watch.holds(&scanner, *span))
            .collect();
        let looks = self.watch.look(&scanner, &spans).map_err(Error::process("scan the pages", self.host))?;
        let mappings = spans.into_iter().zip(looks).filter(|(_, look)| !look.guarded).collect();
        Ok(Frozen { scanner, program: program(self.host), mappings })
    }

    /// Takes note of what the frozen `mappings` have: `own` is populated and not the parent's, `written` is so since the latest
    /// round. What to send, and what to discard.
    pub(crate) fn settle_frozen(&mut self, mappings: &Spans, own: &Spans, written: &Spans) -> (Spans, Spans) {
        let held = self.sent.and(mappings);
        let send = own.without(&held.without(written));
        let discard = held.without(own);
        self.sent = self.sent.without(mappings).union(own);
        (send, discard)
    }
}
