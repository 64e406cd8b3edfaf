//! Real applications, unmodified, whose clients never stop asking while they move.

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::stage::{nothing_is_left, pair_of_daemons};
use crate::apps;
use crate::apps::moving::{journey, migrate, Journey};
use crate::framework::{Case, Ctx, Host};

pub(super) const CASES: &[Case] = &[
    Case { name: "redis moves and loses no write", run: |ctx| moves(ctx, "redis", &["--seccomp"]).into() },
    Case {
        name: "nginx moves with workers of another user",
        run: |ctx| moves(ctx, "nginx", &["--seccomp"]).into(),
    },
    Case {
        name: "PostgreSQL moves with its files, and pgbench's books are right",
        run: |ctx| moves(ctx, "postgres", &["--seccomp"]).into(),
    },
    Case { name: "nodejs moves", run: |ctx| moves(ctx, "node", &[]).into() },
    Case { name: "a JVM moves", run: |ctx| moves(ctx, "java", &["--seccomp"]).into() },
    Case {
        name: "python moves as an ordinary user",
        run: |ctx| moves(ctx, "python", &["--user", "1000:1000"]).into(),
    },
];

/// An application that knows its own gap must have seen the move: about as long as FastMig says that it stood still. It runs a
/// little before the source hears of it.
fn require_own_gap(journey: &Journey) -> Result<()> {
    let Some(own) = journey.after.get("app_gap_ms").map(|gap| gap.as_f64().unwrap_or_default()) else {
        return Ok(());
    };
    let frozen = journey.moved["frozen_ms"].as_f64().context("it was never frozen")?;
    let waited = journey.traffic.gap.as_secs_f64() * 1000.0;
    println!("    the application itself saw a gap of {own} ms");
    ensure!(own > frozen / 4.0, "it saw a gap of {own} ms although it was frozen for {frozen} ms");
    ensure!(
        own < waited + SLACK_MS,
        "it saw a gap of {own} ms although its client waited {waited} ms at most"
    );
    Ok(())
}

/// The host that it left can show what it was like.
fn require_page(host: &Host, report: &Value) -> Result<()> {
    let id = report["id"].as_str().context("it has no id")?;
    host.cmd(["fastmig", "report", id, "-o", PAGE]).ok()?;
    let page = host.cmd(["cat", PAGE]).ok()?;
    host.cmd(["rm", PAGE]).ok()?;
    ensure!(page.contains(id) && page.matches("<svg").count() >= 2, "a page without charts: {page}");
    let unknown = host.cmd(["fastmig", "report", "no-such"]).output()?;
    ensure!(!unknown.status.success() && unknown.stdout.is_empty(), "a page of nothing: {}", unknown.out());
    Ok(())
}

const PAGE: &str = "/root/moves.html";

/// Images that are large, and that one case alone needs.
const LARGE: &[&str] = &["postgres", "node", "java"];

/// A program's threads may come late on a busy machine, also without a move.
const SLACK_MS: f64 = 200.0;

fn moves(ctx: &Ctx, name: &str, extra: &[&str]) -> Result<()> {
    let mut app = apps::named(name).with_context(|| format!("there is no application {name}"))?;
    let (a, b) = pair_of_daemons(ctx)?;
    app.prepare(ctx.session()?)?;
    for host in [&a, &b] {
        super::stage::with_images(host, &[name])?;
    }
    let journey = journey(app.as_mut(), &a, &b, extra, migrate)?;
    let report = &journey.moved;
    println!(
        "    clients waited {} ms, frozen {} ms, {} bytes raw, {} on the wire",
        journey.traffic.gap.as_millis(),
        report["frozen_ms"],
        report["bytes"]["raw"],
        report["bytes"]["wire"]
    );
    ensure!(report["outcome"] == "moved", "the report says {}", report["outcome"]);
    ensure!(report["bytes"]["wire"].as_u64() > Some(0), "nothing travelled: {report}");
    require_own_gap(&journey)?;
    require_page(&a, report)?;
    for host in [&a, &b] {
        if LARGE.contains(&name) {
            host.forget_image(name)?;
        }
        nothing_is_left(host)?;
    }
    Ok(())
}
