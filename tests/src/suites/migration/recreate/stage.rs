//! Two hosts with every client: a has the image in all of their stores, b in none; and the library's own program on both.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use serde_json::Value;

use crate::framework::dist;
use crate::framework::image::reference;
use crate::framework::install::PROGRAMS_DIR;
use crate::framework::{Cmd, Ctx, Equipment, Generation, Host};

/// The image that moves.
pub(super) const IMAGE: &str = "busybox";

/// How long an image may take.
const IMAGE_LIMIT: Duration = Duration::from_secs(120);

const BUILD: &[&str] = &["build", "--release", "-p", "fastmig-recreate", "--example", "recreate"];

/// The source and the destination; all cases of one run share them.
pub(super) fn pair(ctx: &Ctx) -> Result<(Arc<Host>, Arc<Host>)> {
    Ok((host(ctx, "made-a", Generation::Trixie)?, host(ctx, "made-b", Generation::Forky)?))
}

fn host(ctx: &Ctx, name: &str, generation: Generation) -> Result<Arc<Host>> {
    static READY: Mutex<Vec<i32>> = Mutex::new(Vec::new());
    let host = ctx.session()?.equipped_host(name, generation, Equipment::Clients)?;
    let mut ready = READY.lock().unwrap_or_else(PoisonError::into_inner);
    if !ready.contains(&host.pid()) {
        host.install(&dist::build()?)?;
        install_program(&host)?;
        host.start_containerd_that_restarts_nothing()?;
        host.start_clients()?;
        if generation == Generation::Trixie {
            host.import_images(&[IMAGE])?;
            host.share_images(&[IMAGE])?;
        }
        host.mark_baseline()?;
        ready.push(host.pid());
    }
    Ok(host)
}

/// Starts the daemons of both hosts, which know each other then.
pub(super) fn join(a: &Host, b: &Host) -> Result<()> {
    static JOINED: Mutex<Vec<i32>> = Mutex::new(Vec::new());
    let mut joined = JOINED.lock().unwrap_or_else(PoisonError::into_inner);
    if !joined.contains(&a.pid()) {
        a.init_cluster()?;
        a.start_fastmigd()?;
        b.join_cluster(a)?;
        b.start_fastmigd()?;
        joined.push(a.pid());
    }
    Ok(())
}

fn install_program(host: &Host) -> Result<()> {
    let root = dist::repository();
    let cargo = dist::cargo();
    let argv = [&[cargo.as_str()], BUILD].concat();
    let built = Cmd::new(argv).dir(root.to_str().context("a path that is not UTF-8")?).pass_through()?;
    ensure!(built.success(), "the program of the library cannot be built");
    let program = dist::target_dir().join("release/examples/recreate");
    let target = host.outside(PROGRAMS_DIR).join("recreate");
    std::fs::copy(&program, target).with_context(|| format!("cannot copy {}", program.display())).map(drop)
}

/// A recipe on both hosts.
#[derive(Debug)]
pub(super) struct Recipe {
    path: String,
}

impl Recipe {
    /// That of the container `name` on `from`.
    pub(super) fn of(from: &Host, to: &Host, name: &str) -> Result<Self> {
        let text = from.cmd(["recreate", "describe", name]).ok()?;
        Self::written(from, to, name, &text)
    }

    /// This text, whoever wrote it.
    pub(super) fn written(from: &Host, to: &Host, name: &str, text: &str) -> Result<Self> {
        let path = format!("/run/{name}.recipe");
        from.write_file(&path, text)?;
        to.write_file(&path, text)?;
        Ok(Self { path })
    }

    /// The same recipe, changed on its way to `to`.
    pub(super) fn changed(&self, to: &Host, change: impl FnOnce(&mut Value)) -> Result<Self> {
        let mut value: Value = serde_json::from_slice(&to.read_file(&self.path)?)?;
        change(&mut value);
        let path = format!("{}.changed", self.path);
        to.write_file(&path, value.to_string())?;
        Ok(Self { path })
    }

    pub(super) fn has_image(&self, host: &Host) -> Result<bool> {
        Ok(host.cmd(["recreate", "has", &self.path]).ok()?.trim() == "true")
    }

    pub(super) fn exported(&self, from: &Host) -> Result<Vec<u8>> {
        let output = from.cmd(["recreate", "export", &self.path]).timeout(IMAGE_LIMIT).output()?;
        ensure!(output.status.success(), "the image does not come out: {}", output.err());
        Ok(output.stdout)
    }

    pub(super) fn import(&self, to: &Host, archive: Vec<u8>) -> Result<()> {
        let import = to.cmd(["recreate", "import", &self.path]).stdin(archive);
        import.timeout(IMAGE_LIMIT).ok().map(drop)
    }

    pub(super) fn check(&self, host: &Host, name: &str) -> Result<()> {
        host.cmd(["recreate", "check", &self.path, name]).ok().map(drop)
    }

    pub(super) fn create(&self, host: &Host, name: &str) -> Result<Created> {
        let answer = host.cmd(["recreate", "create", &self.path, name]).ok()?;
        let path = format!("/run/{name}.created");
        host.write_file(&path, answer)?;
        Ok(Created { path })
    }

    pub(super) fn is_image_of(&self, host: &Host, name: &str) -> Result<bool> {
        Ok(host.cmd(["recreate", "same", &self.path, name]).ok()?.trim() == "true")
    }
}

/// What was made.
#[derive(Debug)]
pub(super) struct Created {
    path: String,
}

impl Created {
    pub(super) fn undo(&self, host: &Host) -> Result<()> {
        host.cmd(["recreate", "undo", &self.path]).ok().map(drop)
    }
}

/// `fastmig VERB NAME OPTIONS`, and its answer.
pub(super) fn fastmig(host: &Host, verb: &str, name: &str, options: &[&str]) -> Result<Value> {
    let answer = host.cmd([&["fastmig", "--json", verb, name], options].concat()).ok()?;
    serde_json::from_str(&answer).with_context(|| format!("fastmig {verb} answers no JSON: {answer}"))
}

/// Fails unless `result` is an error that tells all of these.
pub(super) fn expect_refusal<T>(result: Result<T>, words: &[&str]) -> Result<()> {
    let Err(error) = result else { bail!("nothing was refused, and {words:?} was to be told") };
    let told = format!("{error:#}");
    ensure!(words.iter().all(|word| told.contains(word)), "{words:?} is not told: {told}");
    Ok(())
}

/// The image as containerd's clients call it.
pub(super) fn full_name() -> String {
    reference(IMAGE)
}
