//! Applications move: from host to host, into the container that they left, with all that they are made of.

mod applications;
mod files;
mod mapped;
mod standby;
mod streams;
mod terminal;
mod tree;

use std::sync::Arc;

use anyhow::Result;

use super::stage;
use crate::apps::provide;
use crate::framework::Generation::{Forky, Trixie};
use crate::framework::{Case, Ctx, Generation, Host};

macro_rules! cases {
    ($($name:literal => $run:expr),* $(,)?) => {
        &[$(Case { name: $name, run: |ctx| $run(ctx).into() }),*]
    };
}

pub(super) const CASES: &[Case] = cases![
    "redis moves under load, from trixie to forky" =>
        |ctx| applications::journey(ctx, "redis", [Trixie, Forky], &["--seccomp"]),
    "redis moves under load, from forky to trixie, as a user" =>
        |ctx| applications::journey(ctx, "redis", [Forky, Trixie], &["--seccomp", "--user", "1000:1000"]),
    "redis moves into another container of its host (trixie)" =>
        |ctx| applications::journey(ctx, "redis", [Trixie, Trixie], &[]),
    "redis moves into another container of its host (forky)" =>
        |ctx| applications::journey(ctx, "redis", [Forky, Forky], &[]),
    "redis comes back ten times into the container that it left (trixie)" =>
        |ctx| applications::cycles(ctx, Trixie),
    "redis comes back ten times into the container that it left (forky)" =>
        |ctx| applications::cycles(ctx, Forky),
    "nginx moves under load, from forky to trixie" =>
        |ctx| applications::journey(ctx, "nginx", [Forky, Trixie], &["--seccomp"]),
    "PostgreSQL moves under load, from forky to trixie" =>
        |ctx| applications::journey(ctx, "postgres", [Forky, Trixie], &["--seccomp"]),
    "nodejs moves under load, from forky to trixie" =>
        |ctx| applications::journey(ctx, "node", [Forky, Trixie], &[]),
    "a JVM moves under load, from forky to trixie" =>
        |ctx| applications::journey(ctx, "java", [Forky, Trixie], &["--seccomp"]),
    "Python with threads moves under load, from forky to trixie, as a user" =>
        |ctx| applications::journey(ctx, "python", [Forky, Trixie], &["--user", "1000:1000"]),
    "a tree of processes moves from trixie to forky" => |ctx| tree::moves(ctx, [Trixie, Forky], &[]),
    "a tree of processes moves from forky to trixie, as a user under the default seccomp profile" =>
        |ctx| tree::moves(ctx, [Forky, Trixie], &["--seccomp", "--user", "1000:1000"]),
    "a tree of processes comes back into the container that it left (trixie)" =>
        |ctx| tree::comes_back(ctx, Trixie),
    "a tree of processes comes back into the container that it left (forky)" =>
        |ctx| tree::comes_back(ctx, Forky),
    "all that was written and deleted in the root file system moves from trixie to forky" =>
        |ctx| files::travel(ctx, [Trixie, Forky]),
    "all that was written and deleted in the root file system moves from forky to trixie" =>
        |ctx| files::travel(ctx, [Forky, Trixie]),
    "what was written through mappings of the root file system's files moves from trixie to forky" =>
        |ctx| mapped::travel(ctx, [Trixie, Forky]),
    "what was written through mappings of the root file system's files moves from forky to trixie" =>
        |ctx| mapped::travel(ctx, [Forky, Trixie]),
    "files that were not to move are missed by name (trixie)" => |ctx| files::left_behind(ctx, Trixie),
    "files that were not to move are missed by name (forky)" => |ctx| files::left_behind(ctx, Forky),
    "no byte of output is lost or doubled over five moves" => streams::five_moves,
    "a program on a terminal moves from trixie to forky" => |ctx| terminal::moves(ctx, [Trixie, Forky]),
    "a program on a terminal moves from forky to trixie" => |ctx| terminal::moves(ctx, [Forky, Trixie]),
    "shells in the standby container do not stand in a restore's way (trixie)" =>
        |ctx| standby::sessions(ctx, Trixie),
    "shells in the standby container do not stand in a restore's way (forky)" =>
        |ctx| standby::sessions(ctx, Forky),
    "a new container starts from a checkpoint that its annotation names" =>
        |ctx| standby::annotated(ctx, [Trixie, Forky]),
    "a container of containerd's checkpoint image goes on where the checkpoint was taken (trixie)" =>
        |ctx| standby::by_ctr(ctx, Trixie),
    "a container of containerd's checkpoint image goes on where the checkpoint was taken (forky)" =>
        |ctx| standby::by_ctr(ctx, Forky),
    "a checkpoint that ctr writes to a directory can be restored (forky)" => standby::by_ctr_to_directory,
];

/// The hosts of a move, with an image in them and our programs beside them.
fn hosts(ctx: &Ctx, generations: [Generation; 2], image: &str) -> Result<[Arc<Host>; 2]> {
    let hosts = [stage::host(ctx, generations[0])?, stage::host(ctx, generations[1])?];
    provide(ctx.session()?)?;
    for host in &hosts {
        if !host.has_image(image)? {
            host.import_images(&[image])?;
        }
    }
    Ok(hosts)
}
