//! A CRIU that does not see memory as it should: its library is there, and does nothing. The application moves all the same,
//! with all of its memory dumped by CRIU itself, and the answer says why.

use std::sync::Arc;

use anyhow::{ensure, Result};

use super::stage::hosts;
use crate::apps::memory::Pair;
use crate::framework::fixture::BlindSpot;
use crate::framework::{Case, Ctx, Host};
use crate::suites::migration::stage::nothing_is_left;

pub(super) const CASES: &[Case] = &[
    Case { name: "a dump in doubt becomes a plain one", run: |ctx| in_doubt(ctx, Side::Source).into() },
    Case { name: "a mapping in doubt is left to CRIU, and it alone", run: |ctx| one_in_doubt(ctx).into() },
    Case {
        name: "a restore in doubt becomes a plain one",
        run: |ctx| in_doubt(ctx, Side::Destination).into(),
    },
];

const LIBRARY: &str = "/usr/lib/fastmig/runtime/criu/lib/libfastmig_view.so";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

/// A host whose library is another one, until dropped: it can be loaded, and does nothing for CRIU.
struct Blind(Arc<Host>);

impl Blind {
    fn make(host: &Arc<Host>) -> Result<Self> {
        let script =
            format!("mv {LIBRARY} {LIBRARY}.kept && cp $(dirname {LIBRARY})/libnl-3.so.200 {LIBRARY}");
        host.sh(&script).ok()?;
        Ok(Self(Arc::clone(host)))
    }
}

impl Drop for Blind {
    fn drop(&mut self) {
        // Should that fail, the cases after this one say so.
        let _ = self.0.cmd(["mv", &format!("{LIBRARY}.kept"), LIBRARY]).output();
    }
}

fn in_doubt(ctx: &Ctx, side: Side) -> Result<()> {
    let (a, b) = hosts(ctx)?;
    let mut pair = Pair::start(&a, &b, &["tick", "--mib", "32", "--writes", "10"])?;
    let blind = Blind::make(if side == Side::Source { &a } else { &b })?;
    let moved = pair.migrate_with(&[])?;
    drop(blind);
    ensure!(moved.report["strategy"] == "stop-copy", "it moved as if nothing were wrong: {}", moved.report);
    let warnings = moved.report["warnings"].to_string();
    ensure!(warnings.contains("was in doubt"), "nobody is told: {warnings}");
    println!("    {warnings}");
    // There and back, as ever.
    let back = pair.migrate()?;
    ensure!(back.report["strategy"] == "pre-copy", "the next move: {}", back.report);
    pair.remove()?;
    nothing_is_left(&a)?;
    nothing_is_left(&b)
}

/// One of several processes has it; the others' memory travels in rounds as ever.
fn one_in_doubt(ctx: &Ctx) -> Result<()> {
    let (a, b) = hosts(ctx)?;
    let mut pair = Pair::start(&a, &b, &["tick", "--mib", "32", "--writes", "10", "--processes", "3"])?;
    let blind = BlindSpot::make(&a)?;
    let moved = pair.migrate_with(&[]);
    drop(blind);
    let report = moved?.report;
    ensure!(report["strategy"] == "pre-copy", "not even the rest travelled in rounds: {report}");
    let left = report["left_to_criu"].as_array().map(Vec::as_slice).unwrap_or_default();
    ensure!(left.len() == 1, "one mapping was in doubt, and this is told: {report}");
    let why = left[0]["why"].as_str().unwrap_or_default();
    ensure!(why.contains("has asked for the hidden mapping"), "the reason is not told: {report}");
    let warnings = report["warnings"].to_string();
    ensure!(warnings.contains("was in doubt"), "nobody is told: {warnings}");
    println!("    {warnings}");
    let back = pair.migrate()?;
    ensure!(back.report["left_to_criu"].is_null(), "the next move: {}", back.report);
    pair.remove()?;
    nothing_is_left(&a)?;
    nothing_is_left(&b)
}
