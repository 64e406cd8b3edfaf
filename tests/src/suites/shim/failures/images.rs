//! Checkpoints that someone or something has spoilt.

use anyhow::{Context, Result};

use super::{clear, refusal, says, PLACE};
use crate::framework::flip::FLIP;
use crate::framework::{Ctx, Generation, Host};
use crate::suites::shim::counter::{counted, start, went_on};
use crate::suites::shim::stage::{self, Task};

/// Where the good one stands, and the spoilt copy.
const GOOD: &str = "/var/lib/failures/good";
const BAD: &str = "/var/lib/failures/bad";

/// What is done to the copy, and what must be said of it.
const DAMAGE: &[(&str, &[&str])] = &[
    ("rm manifest.json", &["no manifest"]),
    ("echo garbage >manifest.json", &["manifest", "damaged"]),
    (": >manifest.json", &["manifest", "damaged"]),
    ("sed -i 's/\"format\": *[0-9]*/\"format\": 99/' manifest.json", &["format 99"]),
    ("flip pages-1.img 100", &["pages-1.img", "another content"]),
    ("truncate -s 100 pages-1.img", &["pages-1.img", "another size"]),
    ("rm pages-1.img", &["pages-1.img", "missing"]),
    (
        "mv pages-1.img /var/lib/failures/elsewhere; ln -s /var/lib/failures/elsewhere pages-1.img",
        &["pages-1.img"],
    ),
    ("mkdir x; mv pages-1.img x; mv x pages-1.img", &["pages-1.img"]),
    ("echo more >inventory-2.img", &["inventory-2.img"]),
    ("chown 1000 .", &["belongs to uid 1000"]),
    ("chmod 777 .", &["writable by others"]),
    ("cd ..; rm -r bad; ln -s good bad", &[BAD]),
    ("cd ..; rm -r bad; echo x >bad", &[BAD]),
    ("cd ..; rm -r bad", &[BAD]),
];

pub(super) fn damaged(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    clear(&host)?;
    let task = start(&host, "image", &[])?;
    let count = counted(&task)?;
    task.fastmig("checkpoint", &["--image-path", GOOD, "--standby"]).ok()?;
    for (harm, words) in DAMAGE {
        refused(&host, &task, harm, words).with_context(|| format!("`{harm}`"))?;
    }
    task.fastmig("restore", &["--image-path", GOOD]).ok()?;
    went_on(&task, count)?;
    task.remove()?;
    host.sh(&format!("rm -rf {PLACE}")).ok()?;
    stage::nothing_is_left(&host)
}

fn refused(host: &Host, task: &Task<'_>, harm: &str, words: &[&str]) -> Result<()> {
    host.sh(&format!("rm -rf {BAD} {PLACE}/elsewhere; cp -a {GOOD} {BAD}; cd {BAD}; {FLIP}; {harm}")).ok()?;
    let error = refusal(&task.fastmig("restore", &["--image-path", BAD]).output()?)?;
    says(&error, words)?;
    task.expect_application("standby")?;
    says(&task.state()?["last_failure"].to_string(), &["restore"])
}
