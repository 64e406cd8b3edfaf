//! docker's and nerdctl's own checkpoints under the shim: they ask only runc's own type for the end of the container, so that the
//! application runs on. With the wrapper they do as with runc (`parity: checkpoint-*`).

use anyhow::{Context, Result};

use super::client::{Client, Setup, DOCKER, NERDCTL};
use super::container::Container;
use super::row::row;
use super::stage;
use crate::framework::clients::DOCKER_SHIM;
use crate::framework::{Case, Ctx, Generation, Outcome};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "docker's own checkpoint lets an application under the shim run on",
        run: |ctx| runs_on(ctx, &DOCKER, DOCKER_SHIM).into(),
    },
    Case {
        name: "nerdctl's own checkpoint lets an application under the shim run on",
        run: |ctx| match NERDCTL.missing().or_else(|| NERDCTL.lacks("checkpoint")) {
            Some(reason) => Outcome::Skipped(reason),
            None => runs_on(ctx, &NERDCTL, "io.containerd.fastmig.v1").into(),
        },
    },
];

fn runs_on(ctx: &Ctx, client: &'static dyn Client, runtime: &str) -> Result<()> {
    let host = stage::host(ctx, Generation::Trixie)?;
    let mut row = row("busybox")?;
    let name = format!("own-{}", client.program());
    let mut setup = Setup::of("busybox", &name, runtime);
    row.shape(&mut setup);
    let container = Container::run(&host, client, &setup)?;
    row.fill(&container)?;
    host.cmd([client.program(), "checkpoint", "create", &name, &name]).ok()?;
    container.expect("running")?;
    container.fastmig("status", &[])?["last_checkpoint"].as_str().context("no checkpoint was taken")?;
    row.verify(&container)?;
    container.remove()
}
