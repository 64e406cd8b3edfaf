//! What the cases stand on: the hosts of the suite `migration`, with the image of the programs.

use std::sync::Arc;

use anyhow::Result;

use crate::apps::memory::{image, Moved, Pair};
use crate::framework::{Ctx, Host};
use crate::suites::migration::stage::{nothing_is_left, pair_of_daemons, with_images};

/// Both hosts, with daemons.
pub(super) fn hosts(ctx: &Ctx) -> Result<(Arc<Host>, Arc<Host>)> {
    let (a, b) = pair_of_daemons(ctx)?;
    for host in [&a, &b] {
        with_images(host, &[image()])?;
    }
    Ok((a, b))
}

/// Moves a program so often, from a to b and back. All of its memory is looked at before and after each move.
pub(super) fn moves(ctx: &Ctx, words: &[&str], times: usize) -> Result<Vec<Moved>> {
    let (a, b) = hosts(ctx)?;
    let mut pair = Pair::start(&a, &b, words)?;
    let moved = (0..times).map(|_| pair.migrate()).collect::<Result<Vec<_>>>()?;
    pair.remove()?;
    for host in [&a, &b] {
        nothing_is_left(host)?;
    }
    moved.iter().for_each(|moved| tell(words, moved));
    Ok(moved)
}

pub(super) fn tell(words: &[&str], moved: &Moved) {
    let [before, after] = moved.held_kib.map(|kib| kib / 1024);
    println!(
        "    {}: it saw a gap of {:.1} ms, was frozen for {} ms of {}; {before} MiB held before, {after} after",
        words.join(" "),
        moved.pause.as_secs_f64() * 1000.0,
        moved.report["frozen_ms"],
        moved.report["total_ms"],
    );
    if moved.write_only > 0 {
        println!("    CRIU left {} of its pages without read access", moved.write_only);
    }
}
