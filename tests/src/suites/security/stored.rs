//! Hostile checkpoints that come out of a store: each is refused, and nothing outside the container is created, changed or read.

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};

use anyhow::{bail, ensure, Context, Result};
use serde_json::{json, Value};
use tar::EntryType;

use super::craft::{self, Checkpoint, Entry, Stored, PART};
use super::outside::{CONTENT, SECRET};
use super::stage::Stage;
use crate::framework::{Case, Ctx};

pub(super) const CASES: &[Case] =
    &[Case { name: "stores: hostile checkpoints are refused", run: |ctx| each(ctx).into() }];

/// One that somebody put there.
struct Hostile {
    name: &'static str,
    make: fn(&mut Stored),
    /// What is said of it.
    words: &'static [&'static str],
}

/// What its archive holds.
const ARCHIVES: &[Hostile] = &[
    Hostile {
        name: "a name that climbs",
        make: |s| add(s, Entry::file("../../../srv/outside/new", "x")),
        words: &["plain file name"],
    },
    Hostile {
        name: "an absolute name",
        make: |s| add(s, Entry::file("/srv/outside/new", "x")),
        words: &["plain file name"],
    },
    Hostile {
        name: "a name in a directory",
        make: |s| add(s, Entry::file("a/b", "x")),
        words: &["plain file name"],
    },
    Hostile { name: "a hidden name", make: |s| add(s, Entry::file(".x", "x")), words: &["plain file name"] },
    Hostile { name: "no name", make: |s| add(s, Entry::file("", "x")), words: &["damaged"] },
    Hostile {
        name: "a symbolic link",
        make: |s| become_(s, EntryType::Symlink),
        words: &["not a plain file"],
    },
    Hostile { name: "a hard link", make: |s| become_(s, EntryType::Link), words: &["not a plain file"] },
    Hostile { name: "a disk", make: |s| become_(s, EntryType::Block), words: &["not a plain file"] },
    Hostile { name: "a terminal", make: |s| become_(s, EntryType::Char), words: &["not a plain file"] },
    Hostile { name: "a pipe", make: |s| become_(s, EntryType::Fifo), words: &["not a plain file"] },
    Hostile { name: "a directory", make: |s| become_(s, EntryType::Directory), words: &["not a plain file"] },
    Hostile { name: "holes", make: |s| become_(s, EntryType::GNUSparse), words: &["not a plain file"] },
    Hostile {
        name: "a longer name beside",
        make: |s| {
            let mut long = Entry::file("././@LongLink", "../../../srv/outside/new\0");
            long.kind = EntryType::GNULongName;
            s.entries.insert(0, long);
        },
        words: &["not a plain file"],
    },
    Hostile {
        name: "another name beside",
        make: |s| {
            let mut other = Entry::file("x", "34 path=../../../srv/outside/new\n");
            other.kind = EntryType::XHeader;
            s.entries.insert(0, other);
        },
        words: &["not a plain file"],
    },
    Hostile {
        name: "a length that is not there",
        make: |s| s.entry("files.img").size = Some(8 << 30),
        words: &["damaged"],
    },
    Hostile { name: "more than announced", make: |s| s.hidden = 1, words: &["larger than announced"] },
    Hostile { name: "less than announced", make: |s| s.hidden = -1, words: &["lacks files"] },
    Hostile {
        name: "a gibibyte of zeros",
        make: |s| {
            s.hidden = 1 << 30;
            s.entries.insert(0, Entry::file("zeros.img", vec![0; 1 << 30]));
        },
        words: &["larger than announced"],
    },
    Hostile {
        name: "a file twice",
        make: |s| s.entries.insert(0, Entry::file("files.img", "x")),
        words: &["one file too many"],
    },
    Hostile {
        name: "a file after the manifest",
        make: |s| s.entries.push(Entry::file("a.img", "x")),
        words: &["one file too many"],
    },
    Hostile {
        name: "a file that the manifest does not know",
        make: |s| add(s, Entry::file("a.img", "x")),
        words: &["a.img"],
    },
    Hostile { name: "no manifest", make: |s| drop(s.entries.pop()), words: &["lacks files"] },
    Hostile { name: "something after its end", make: |s| s.after = vec![7; 512], words: &["damaged"] },
    Hostile { name: "other content", make: |s| s.entry("files.img").content[9] ^= 1, words: &["files.img"] },
    Hostile {
        name: "a manifest that climbs",
        make: |s| s.manifest(|manifest| manifest["files"][0]["name"] = "../../srv/outside/secret".into()),
        words: &["damaged"],
    },
    Hostile {
        name: "a manifest that counts wrong",
        make: |s| s.manifest(|manifest| manifest["files"][0]["size"] = u64::MAX.into()),
        words: &["damaged"],
    },
    Hostile {
        name: "a manifest that is none",
        make: |s| s.entry("manifest.json").content = b"[".into(),
        words: &["damaged"],
    },
    Hostile {
        name: "a manifest of numbers that are taken",
        make: |s| s.manifest(|manifest| manifest["pids"] = json!([1, 1001])),
        words: &["impossible pid"],
    },
];

/// What its label says, and what lies on the disk.
const LABELS: &[Hostile] = &[
    Hostile { name: "another's name", make: |s| s.label = json!({ "name": "other" }), words: &["damaged"] },
    Hostile {
        name: "parts that lie elsewhere",
        make: |s| s.label = json!({ "push": "../../../../srv/outsid" }),
        words: &["damaged"],
    },
    Hostile {
        name: "a part without end",
        make: |s| part(s, u64::MAX.into(), "0".repeat(64).into()),
        words: &["damaged"],
    },
    Hostile {
        name: "a digest that climbs",
        make: |s| part(s, 1.into(), "../../etc/shadow".into()),
        words: &["damaged"],
    },
    Hostile {
        name: "no parts",
        make: |s| s.label = json!({ "parts": [], "stored": 0 }),
        words: &["damaged"],
    },
    Hostile { name: "another format", make: |s| s.label = json!({ "format": 2 }), words: &[] },
    Hostile {
        name: "more than a label says",
        make: |s| s.label = json!({ "policy": "x" }),
        words: &["damaged"],
    },
    Hostile {
        name: "a label without end",
        make: |s| s.label = json!({ "container": "x".repeat(5 << 20) }),
        words: &[],
    },
    Hostile {
        name: "a label that is a link to a secret",
        make: |s| {
            s.spoil = Some(|directory, _| {
                fs::remove_file(directory.join("label.json"))?;
                Ok(symlink(SECRET, directory.join("label.json"))?)
            });
        },
        words: &[],
    },
    Hostile {
        name: "a part that is a link to a secret",
        make: |s| {
            let (size, digest) =
                (CONTENT.len(), hex::encode(<sha2::Sha256 as sha2::Digest>::digest(CONTENT)));
            part(s, size.into(), digest.into());
            s.label["stored"] = size.into();
            s.spoil = Some(|_, parts| {
                fs::remove_file(parts.join(PART))?;
                Ok(symlink(SECRET, parts.join(PART))?)
            });
        },
        words: &[],
    },
    Hostile {
        name: "a part that is a pipe",
        make: |s| {
            s.spoil = Some(|_, parts| {
                fs::remove_file(parts.join(PART))?;
                Ok(nix::unistd::mkfifo(&parts.join(PART), nix::sys::stat::Mode::S_IRUSR)?)
            });
        },
        words: &[],
    },
    Hostile {
        name: "parts whose directory is a link",
        make: |s| {
            s.spoil = Some(|_, parts| {
                fs::remove_dir_all(parts)?;
                Ok(symlink("/srv/outside", parts)?)
            });
        },
        words: &[],
    },
];

fn add(stored: &mut Stored, entry: Entry) {
    stored.entries.insert(0, entry);
}

fn become_(stored: &mut Stored, kind: EntryType) {
    add(stored, Entry::other("link.img", kind, SECRET));
}

fn part(stored: &mut Stored, size: Value, digest: Value) {
    stored.label = json!({ "parts": [{ "size": size, "sha256": digest }] });
}

fn each(ctx: &Ctx) -> Result<()> {
    let stage = Stage::new(ctx, &[])?;
    let (place, path) = stage.place();
    let mut wrong = Vec::new();
    let all = || ARCHIVES.iter().chain(LABELS);
    for hostile in all() {
        craft::remove(&place)?;
        let mut stored = Stored::of(&stage.good())?;
        (hostile.make)(&mut stored);
        stored.write(&place, "evil")?;
        if let Err(error) = refused(&stage, &format!("{path}/evil"), hostile.words) {
            wrong.push(format!("{}: {error:#}", hostile.name));
        }
    }
    if let Err(error) = filter(&stage).and_then(|()| modes(&stage)) {
        wrong.push(format!("{error:#}"));
    }
    craft::remove(&place)?;
    if !wrong.is_empty() {
        bail!("{} of {}:\n{}", wrong.len(), all().count(), wrong.join("\n"));
    }
    println!("    {} hostile checkpoints", all().count() + 2);
    stage.end()
}

fn refused(stage: &Stage, location: &str, words: &[&str]) -> Result<()> {
    let before = stage.outside()?;
    let output = stage
        .container
        .operation("restore", &["--from", location])
        .timeout(std::time::Duration::from_secs(20))
        .output()?;
    stage.outside()?.is_as(&before)?;
    let text = output.out() + &output.err();
    ensure!(!output.status.success(), "it is restored");
    for word in words {
        ensure!(text.contains(word), "nothing of {word:?} in: {text}");
    }
    ensure!(!text.contains(CONTENT.trim()), "a secret is told: {text}");
    stage.container.require("standby").context("after a refusal")?;
    let left =
        stage.host.sh("find / -xdev -name '*.partial-*' -not -path '/proc/*' 2>/dev/null | head").ok()?;
    ensure!(left.trim().is_empty(), "something is left: {left}");
    Ok(())
}

/// One that a store hands out whole is looked at as any other.
fn filter(stage: &Stage) -> Result<()> {
    let (place, path) = stage.place();
    craft::remove(&place)?;
    let made = place.with_file_name("made");
    let checkpoint = Checkpoint::copy(&stage.good(), &made)?;
    checkpoint.image("seccomp.img", Vec::clear)?;
    checkpoint.seal()?;
    Stored::of(&made)?.write(&place, "evil")?;
    craft::remove(&made)?;
    refused(stage, &format!("{path}/evil"), &[]).context("without a list of filters")
}

/// Modes are not the archive's to decide.
fn modes(stage: &Stage) -> Result<()> {
    let (place, path) = stage.place();
    craft::remove(&place)?;
    let mut stored = Stored::of(&stage.good())?;
    stored.entries.iter_mut().for_each(|entry| entry.mode = 0o6777);
    stored.write(&place, "evil")?;
    let pulled = format!("{path}/pulled");
    stage.host.cmd(["fastmig", "checkpoints", "pull", &format!("{path}/evil"), &pulled]).ok()?;
    for entry in fs::read_dir(place.join("pulled"))? {
        let entry = entry?;
        let mode = entry.metadata()?.permissions().mode() & 0o7777;
        ensure!(mode == 0o600, "{:?} has the mode {mode:o}", entry.file_name());
    }
    Ok(())
}
