//! What needs another kernel than the one here, or a whole machine.
//!
//! This file: the tests of tracking memory, and of hiding it from CRIU, on kernels that have other means for it than the one here
//! may; each test is a case. In brief, a few of them on the older kernel. `nodes`: FastMig as it is installed, on two machines.

mod nodes;
mod programs;
mod said;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::framework::cache::Cache;
use crate::framework::vm::{machine, Guest, Kernel};
use crate::framework::{bundle, Ctx, Tally};

use programs::Program;

/// Of one machine; a test by itself has less.
const LIMIT: Duration = Duration::from_secs(900);

/// Runs one test, and says how it ended, and when.
const RUN: &str = r#"
ended() { echo; echo "@ end $1 $(cut -d' ' -f1 /proc/uptime)"; }
run() {
    export FASTMIG_MEMORY_METHOD="$1"
    echo; echo "@ begin $1 $2 $3"
    timeout -s KILL 150 "/programs/$2" --exact "$3" --nocapture --test-threads=1 2>&1
    ended $?
}
export FASTMIG_MEMORY_SLOW=1 FASTMIG_VIEW_BUNDLE=/criu
ended 0
"#;

pub(super) fn run(ctx: &Ctx) -> Result<Tally> {
    if let Err(error) = machine::prepare() {
        println!("vm: skipped\n    {error:#}");
        return Ok(Tally { skipped: Kernel::ALL.len() + nodes::wanted(ctx), ..Tally::default() });
    }
    let on_nodes = nodes::run(ctx);
    // The kernel here has the other way of seeing writes.
    let kernels = if ctx.is_brief() { &[Kernel::Bookworm][..] } else { &Kernel::ALL };
    let tally = run_on(ctx, kernels)?;
    Ok(Tally {
        passed: tally.passed + on_nodes.passed,
        failed: tally.failed + on_nodes.failed,
        skipped: tally.skipped + on_nodes.skipped,
    })
}

pub(super) fn run_on(ctx: &Ctx, kernels: &[Kernel]) -> Result<Tally> {
    let mut tally = Tally::default();
    if let Err(error) = machine::prepare() {
        println!("vm: skipped\n    {error:#}");
        tally.skipped += kernels.len();
        return Ok(tally);
    }
    let cache = Cache::open()?;
    let programs = programs::build(ctx.is_brief())?;
    let shipped = tempfile::tempdir()?;
    let bundle = bundle::export(&cache, shipped.path())?;
    for kernel in kernels {
        let wanted = cases(ctx, *kernel, &programs);
        if wanted.is_empty() {
            continue;
        }
        let said = machine::boot(&cache, *kernel, &guest(&programs, &wanted, &bundle), LIMIT)?;
        for case in &wanted {
            said::judge(&format!("{kernel}: {}", case.name()), &said::of(&said, &case.line()), &mut tally);
        }
    }
    Ok(tally)
}

/// The tests of tracking memory that there is time for always.
const IN_BRIEF: &[&str] = &[
    "probe::tests::a_method_is_found_or_told_why_not",
    "content::what_a_family_shares_is_sent_once_and_stays_shared",
    "content::what_is_moved_over_what_was_sent_is_seen",
    "unharmed::signals_calls_and_the_exit_code_are_as_without_us",
    "what_a_receiver_has_is_what_is_there",
];

/// One test with one way of seeing writes.
#[derive(Debug)]
struct Case<'a> {
    method: &'static str,
    program: &'a str,
    test: &'a str,
}

impl Case<'_> {
    fn name(&self) -> String {
        format!("{}, {}: {}", self.method, self.program, self.test)
    }

    fn line(&self) -> String {
        format!("{} {} {}", self.method, self.program, self.test)
    }
}

fn cases<'a>(ctx: &Ctx, kernel: Kernel, programs: &'a [Program]) -> Vec<Case<'a>> {
    let methods: &[&str] = match kernel {
        Kernel::Bookworm => &["soft-dirty"],
        Kernel::Trixie => &["write-protect", "soft-dirty"],
    };
    let mut cases = Vec::new();
    for (turn, method) in methods.iter().enumerate() {
        // The others choose no method: once is enough.
        for program in programs.iter().filter(|program| turn == 0 || program.name == "live") {
            let all = program.tests.iter().map(|test| Case { method, program: &program.name, test });
            let all = all.filter(|case| !ctx.is_brief() || IN_BRIEF.contains(&case.test));
            cases.extend(all.filter(|case| ctx.wants(&format!("{kernel}: {}", case.name()))));
        }
    }
    cases
}

fn guest(programs: &[Program], cases: &[Case<'_>], bundle: &Path) -> Guest {
    let runs: Vec<String> = cases.iter().map(|case| format!("run {}", case.line())).collect();
    Guest {
        programs: programs.iter().map(|program| (program.name.clone(), program.path.clone())).collect(),
        trees: vec![("criu".to_owned(), bundle.to_owned())],
        directories: vec![programs::scratch()],
        script: format!("{RUN}{}", runs.join("\n")),
    }
}
