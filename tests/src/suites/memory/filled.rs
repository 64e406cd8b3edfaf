//! Memory that stays where it is: full, of several sizes, idle and written.

use anyhow::Result;

use super::stage::moves;
use crate::framework::{Case, Ctx};

pub(super) const CASES: &[Case] = &[
    Case { name: "idle memory moves: 16 MiB", run: |ctx| once(ctx, &["tick", "--mib", "16"]).into() },
    Case { name: "idle memory moves: 128 MiB", run: |ctx| once(ctx, &["tick", "--mib", "128"]).into() },
    Case { name: "idle memory moves: 1 GiB", run: |ctx| once(ctx, &["tick", "--mib", "1024"]).into() },
    Case { name: "memory moves that is written: 16 MiB", run: |ctx| written(ctx, "16").into() },
    Case { name: "memory moves that is written: 128 MiB", run: |ctx| written(ctx, "128").into() },
    Case { name: "memory moves that is written: 1 GiB", run: |ctx| written(ctx, "1024").into() },
    Case { name: "sixteen processes move, each with memory of its own", run: |ctx| sixteen(ctx, &[]).into() },
    Case {
        name: "sixteen processes move, with memory that they inherited",
        run: |ctx| sixteen(ctx, &["--forked-after"]).into(),
    },
    Case {
        name: "memory moves that is written as fast as can be",
        run: |ctx| once(ctx, &["burst", "--mib", "128", "--threads", "2"]).into(),
    },
    Case {
        name: "huge pages move, and are read and written",
        run: |ctx| once(ctx, &["huge", "--mib", "256", "--writes", "200"]).into(),
    },
];

fn once(ctx: &Ctx, words: &[&str]) -> Result<()> {
    moves(ctx, words, 1).map(drop)
}

/// With 100 MiB of writes each second, by several threads.
fn written(ctx: &Ctx, mib: &str) -> Result<()> {
    once(ctx, &["tick", "--mib", mib, "--writes", "100", "--threads", "4"])
}

/// A sixteenth of what they hold is written each second or so.
fn sixteen(ctx: &Ctx, forked: &[&str]) -> Result<()> {
    once(ctx, &[&["tick", "--processes", "16", "--mib", "32", "--writes", "30"], forked].concat())
}
