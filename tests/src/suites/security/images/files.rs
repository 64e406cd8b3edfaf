//! Files of a root file system that want to be somewhere else, or too much.

use std::fs;
use std::io;

use anyhow::{ensure, Result};
use tar::EntryType;

use super::Ends::{Harmless, Refused};
use super::Hostile;
use crate::suites::security::craft::{Archive, Checkpoint};

const ARCHIVE: &str = "rootfs-1.tar.lz4";

pub(super) const IMAGES: &[Hostile] = &[
    Hostile {
        name: "a file above the root",
        make: |image| archive(image, |a| a.file("../../../srv/outside/made", 0o644, b"x")),
        ends: Refused(&["is no path below the root"]),
    },
    Hostile {
        name: "a file with an absolute path",
        make: |image| archive(image, |a| a.file("/srv/outside/secret", 0o644, b"x")),
        ends: Refused(&["is no path below the root"]),
    },
    Hostile {
        name: "a file behind a link to the host's root",
        make: |image| {
            archive(image, |a| {
                a.symlink("tmp/door", "/proc/1/root/../../srv/outside")?;
                a.file("tmp/door/made", 0o644, b"x")
            })
        },
        ends: Refused(&["tmp/door"]),
    },
    Hostile {
        name: "a file in the container's view of processes",
        make: |image| archive(image, |a| a.file("proc/sys/kernel/core_pattern", 0o644, b"|/tmp/x")),
        ends: Harmless(|_| Ok(())),
    },
    Hostile {
        name: "a file in the directory that CRIU is started from",
        make: |image| archive(image, |a| a.file("dev/.fastmig/pre1", 0o644, b"/tmp/x.so")),
        ends: Harmless(|stage| {
            let found = fs::read(stage.inside("/dev/.fastmig/pre1")?).unwrap_or_default();
            ensure!(!found.ends_with(b"/tmp/x.so"), "CRIU would load the container's library");
            Ok(())
        }),
    },
    Hostile {
        name: "a hard link to a file above the root",
        make: |image| archive(image, |a| a.link("tmp/mine", "../../../srv/outside/secret")),
        ends: Refused(&["is no path below the root"]),
    },
    Hostile {
        name: "a hard link into the view of processes",
        make: |image| archive(image, |a| a.link("tmp/mine", "proc/1/environ")),
        ends: Refused(&["proc/1"]),
    },
    Hostile {
        name: "a disk of the host",
        make: |image| archive(image, |a| a.entry("tmp/disk", (EntryType::Block, 0o666), 0, io::empty())),
        ends: Refused(&["tmp/disk", "does not travel"]),
    },
    Hostile {
        name: "a device of the host",
        make: |image| archive(image, |a| a.entry("tmp/mem", (EntryType::Char, 0o666), 0, io::empty())),
        ends: Refused(&["tmp/mem", "does not travel"]),
    },
    Hostile {
        name: "a program that makes root of whoever calls it",
        make: |image| archive(image, |a| a.file("tmp/su", 0o4755, b"#!/bin/sh\n")),
        // As any image may have one; nobody gains by it where the container says so, and nobody else sees it.
        ends: Harmless(|stage| {
            let status = stage.container.exec("nnp", &["grep", "NoNewPrivs:", "/proc/self/status"])?;
            ensure!(status.trim().ends_with('1'), "{status}");
            Ok(())
        }),
    },
    Hostile {
        name: "directories without end",
        make: |image| {
            archive(image, |a| {
                // As deep as a name in a header of 100 bytes can say.
                (1..50).try_for_each(|depth| a.directory(&"d/".repeat(depth)))
            })
        },
        ends: Harmless(|_| Ok(())),
    },
    Hostile {
        name: "the same file over and over",
        make: |image| {
            archive(image, |a| {
                a.file("tmp/twice", 0o644, b"first")?;
                a.symlink("tmp/twice", "/proc/1/root/../../srv/outside/secret")?;
                a.file("tmp/twice", 0o644, b"second")
            })
        },
        ends: Harmless(|stage| {
            ensure!(fs::read(stage.inside("/tmp/twice")?)? == b"second", "not the last one");
            Ok(())
        }),
    },
    Hostile {
        name: "a file that is larger than the archive",
        make: |image| {
            let mut a = Archive::new();
            a.entry("tmp/huge", (EntryType::Regular, 0o644), 1 << 40, io::empty())?;
            put(image, &a.finish()?)
        },
        ends: Refused(&["tmp/huge"]),
    },
    Hostile {
        name: "all is to go but what is mounted",
        make: |image| archive(image, |a| a.marked("", "emptied")),
        ends: Refused(&["is no path below the root"]),
    },
    Hostile {
        name: "what is above the root is to go",
        make: |image| archive(image, |a| a.marked("../../../srv/outside/secret", "gone")),
        ends: Refused(&["is no path below the root"]),
    },
    Hostile {
        name: "no archive",
        make: |image| put(image, b"no archive at all"),
        ends: Refused(&["the archive"]),
    },
    Hostile {
        name: "an archive without an end",
        make: |image| {
            let mut a = Archive::new();
            a.file("tmp/a", 0o644, b"x")?;
            let bytes = a.finish()?;
            put(image, &bytes[..bytes.len() / 2])
        },
        ends: Refused(&["the archive"]),
    },
];

fn archive(image: &Checkpoint, fill: impl FnOnce(&mut Archive) -> Result<()>) -> Result<()> {
    let mut archive = Archive::new();
    fill(&mut archive)?;
    put(image, &archive.finish()?)
}

fn put(image: &Checkpoint, bytes: &[u8]) -> Result<()> {
    fs::write(image.path(ARCHIVE), bytes)?;
    image.seal()
}
