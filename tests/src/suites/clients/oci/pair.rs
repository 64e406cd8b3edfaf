//! A bundle on a host, and two runtimes that are given the same.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::framework::image::reference;
use crate::framework::recipe::Equipment;
use crate::framework::{dist, Ctx, Generation, Host, Output};

/// The runtimes that are compared.
const RUNC: &str = "runc";
const FASTMIG: &str = "fastmig";

/// Where the bundle is on the host: on a tmpfs, for CRIU finds no mount on an overlay of an overlay.
const BUNDLE: &str = "/oci/bundle";

/// A host of this generation with a bundle of busybox in it; the cases of one run share it.
pub(super) fn host(ctx: &Ctx, generation: Generation) -> Result<Arc<Host>> {
    static READY: Mutex<Vec<i32>> = Mutex::new(Vec::new());
    let name = match generation {
        Generation::Trixie => "ot",
        Generation::Forky => "of",
    };
    // With crun on it.
    let host = ctx.session()?.equipped_host(name, generation, Equipment::Clients)?;
    let mut ready = READY.lock().unwrap_or_else(PoisonError::into_inner);
    if !ready.contains(&host.pid()) {
        host.install(&dist::build()?)?;
        host.start_containerd()?;
        host.import_images(&["busybox"])?;
        let image = reference("busybox");
        let script = format!(
            "mkdir -p /oci /tmp/image && mount -t tmpfs oci /oci && mkdir -p {BUNDLE}/rootfs && \
             ctr images mount {image} /tmp/image && cp -a /tmp/image/. {BUNDLE}/rootfs/ && \
             ctr images unmount --rm /tmp/image && cd {BUNDLE} && runc spec && \
             jq '.process.terminal = false | .root.readonly = false' config.json > /oci/plain.json"
        );
        host.sh(&script).ok().context("no bundle")?;
        host.mark_baseline()?;
        ready.push(host.pid());
    }
    Ok(host)
}

/// What one runtime is asked: `edit` is a jq filter on the plain specification, `script` a shell script in the bundle that
/// calls `$R`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    pub(super) edit: &'static str,
    pub(super) script: &'static str,
}

impl Question {
    /// Asks `runtime`, and removes what the script left.
    fn ask(&self, host: &Host, runtime: &str) -> Result<Output> {
        let setup = format!(
            "cd {BUNDLE} && find . -mindepth 1 -maxdepth 1 ! -name rootfs -exec rm -rf {{}} + && \
             jq \"$1\" /oci/plain.json > config.json && rm -rf /oci/state /oci/out && mkdir /oci/out && \
             R='{runtime} --root /oci/state'\n\
             clear() {{ for id in $(runc --root /oci/state list -q); do $R delete -f $id >/dev/null 2>&1; done; }}\n\
             trap clear EXIT\n{script}",
            script = self.script
        );
        host.cmd(["sh", "-c", &setup, "sh", self.edit]).timeout(Duration::from_secs(60)).output()
    }

    /// Fails where FastMig's standard output or exit code is not runc's, or only one of them has something to complain of.
    pub(super) fn same_answers(&self, host: &Host) -> Result<()> {
        let runc = self.ask(host, RUNC)?;
        let fastmig = self.ask(host, FASTMIG)?;
        let told = || {
            format!(
                "runc ({:?}):\n{}{}\nfastmig ({:?}):\n{}{}",
                runc.status.code(),
                runc.out(),
                runc.err(),
                fastmig.status.code(),
                fastmig.out(),
                fastmig.err()
            )
        };
        ensure!(!runc.stdout.is_empty(), "the script says nothing: {}", told());
        ensure!(runc.out() == fastmig.out(), "different answers\n{}", told());
        ensure!(runc.status.code() == fastmig.status.code(), "different exit codes\n{}", told());
        ensure!(runc.stderr.is_empty() == fastmig.stderr.is_empty(), "one complains\n{}", told());
        Ok(())
    }

    /// Fails where the script fails, or does not say `expected`.
    pub(super) fn fastmig_says(&self, host: &Host, expected: &[&str]) -> Result<()> {
        let said = self.ask(host, FASTMIG)?;
        let text = said.out() + &said.err();
        ensure!(said.status.success(), "exit code {:?}: {text}", said.status.code());
        for line in expected {
            ensure!(text.contains(line), "not said: {line:?}\nbut:\n{text}");
        }
        Ok(())
    }
}
