//! Directories of the host that the application may write to: they do not travel, and somebody must say that this is right.

use anyhow::{ensure, Result};

use super::stage::{nothing_is_left, pair_of_daemons, with_images};
use crate::apps::container::{Container, Setup};
use crate::apps::migrating::{command, migrate};
use crate::framework::{Case, Ctx};

pub(super) const CASES: &[Case] = &[Case {
    name: "a writable directory of the host keeps an application, unless it is said to be the same",
    run: |ctx| writable(ctx).into(),
}];

const HERE: &str = "/tmp/shared-files";
const MOUNT: &str = "type=bind,src=/tmp/shared-files,dst=/data,options=rbind:rw";

fn writable(ctx: &Ctx) -> Result<()> {
    let (a, b) = pair_of_daemons(ctx)?;
    for host in [&a, &b] {
        with_images(host, &["redis"])?;
        host.cmd(["mkdir", "-p", HERE]).ok()?;
    }
    let setup = Setup::of("redis").with(["--mount", MOUNT]);
    let source = Container::run(&a, "bound-1", &setup)?;
    let destination = Container::run(&b, "bound-2", &setup.in_standby())?;
    let try_with =
        |options: &[&str]| command(&source, &destination, &[&["--dry-run"], options].concat()).output();

    let refused = try_with(&[])?;
    let said = format!("{}{}", refused.out(), refused.err());
    ensure!(refused.status.code() == Some(2), "exit code {:?}: {said}", refused.status.code());
    ensure!(said.contains("/data") && said.contains("fastmig.dev/binds=same"), "not explained: {said}");
    let other = format!("/tmp={HERE}");
    ensure!(!try_with(&["--bind-map", &other])?.status.success(), "another directory was taken for it");
    let mapped = try_with(&["--bind-map", &format!("{HERE}={HERE}")])?;
    ensure!(mapped.status.success(), "refused although mapped: {}{}", mapped.out(), mapped.err());
    source.require("running")?;
    migrate(&source, &destination, &["--binds", "same"])?;

    source.remove()?;
    destination.remove()?;
    nothing_is_left(&a)?;
    nothing_is_left(&b)
}
