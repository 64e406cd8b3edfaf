//! To another host, both with CRIU inside their containers.

use std::sync::Arc;

use anyhow::{ensure, Result};

use super::{counts_on, setup, INSIDE, LIMIT, USER};
use crate::apps::container::Container;
use crate::apps::migrating::{command, migrate};
use crate::framework::process::wait_until;
use crate::framework::{Ctx, Host};
use crate::suites::migration::stage::{nothing_is_left, pair_of_daemons, with_images};
use crate::suites::security::stage::Settings;

pub(super) fn moves(ctx: &Ctx) -> Result<()> {
    let (a, b) = pair_of_daemons(ctx)?;
    for host in [&a, &b] {
        with_images(host, &["python"])?;
    }
    let settings = [Settings::write(&a, INSIDE)?, Settings::write(&b, INSIDE)?];
    let result = again(&a).and_then(|()| again(&b)).and_then(|()| there_and_back(&a, &b));
    drop(settings);
    again(&a)?;
    again(&b)?;
    result
}

/// The daemon reads its settings when it starts.
fn again(host: &Host) -> Result<()> {
    host.stop_fastmigd()?;
    host.start_fastmigd()
}

fn there_and_back(a: &Arc<Host>, b: &Arc<Host>) -> Result<()> {
    let setup = setup("heap = os.urandom(8 << 20)", USER);
    let source = Container::run(a, "inside-1", &setup)?;
    let destination = Container::run(b, "inside-2", &setup.in_standby())?;
    let ready = || source.output().is_ok_and(|output| output.starts_with(b"ready"));
    wait_until(LIMIT, ready)?;

    // Memory cannot travel in rounds: by itself it does not, and asked for that is said.
    let refused = command(&source, &destination, &["--strategy", "pre-copy"]).output()?;
    let said = refused.out() + &refused.err();
    ensure!(!refused.status.success() && said.contains("CRIU works inside the container"), "{said}");
    counts_on(&source)?;
    let report = migrate(&source, &destination, &[])?;
    ensure!(report["strategy"] == "stop-copy", "moved by {report}");
    counts_on(&destination)?;
    migrate(&destination, &source, &[])?;
    counts_on(&source)?;

    source.remove()?;
    destination.remove()?;
    nothing_is_left(a)?;
    nothing_is_left(b)
}
