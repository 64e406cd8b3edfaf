//! Directories whose entries are not what they seem.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{chown, symlink, FileExt, PermissionsExt};

use anyhow::Result;
use nix::sys::stat::{makedev, mknod, Mode, SFlag};

use super::Ends::Refused;
use super::Hostile;
use crate::suites::security::craft::{remove, Checkpoint};
use crate::suites::security::outside::SECRET;

const PAGES: &str = "pages-1.img";
const MANIFEST: &str = "manifest.json";

pub(super) const IMAGES: &[Hostile] = &[
    Hostile {
        name: "the manifest is a link to a file of the host",
        make: |image| link(image, MANIFEST, SECRET),
        ends: Refused(&["manifest.json", "symbolic link"]),
    },
    Hostile {
        name: "the manifest is a pipe that nobody writes to",
        make: |image| special(image, MANIFEST, SFlag::S_IFIFO),
        ends: Refused(&["manifest.json", "is not a file"]),
    },
    Hostile {
        name: "the manifest is a device without an end",
        make: |image| special(image, MANIFEST, SFlag::S_IFCHR),
        ends: Refused(&["manifest.json", "is not a file"]),
    },
    Hostile {
        name: "the manifest is a directory",
        make: |image| directory(image, MANIFEST),
        ends: Refused(&["manifest.json", "is not a file"]),
    },
    Hostile {
        name: "the manifest is a hole of a tebibyte",
        make: |image| Ok(File::create(image.path(MANIFEST))?.set_len(1 << 40)?),
        ends: Refused(&["manifest", "is damaged"]),
    },
    Hostile {
        name: "the manifest belongs to a user",
        make: |image| Ok(chown(image.path(MANIFEST), Some(1000), None)?),
        ends: Refused(&["manifest.json", "belongs to uid 1000"]),
    },
    Hostile {
        name: "an image is a link to a file of the host",
        make: |image| link(image, PAGES, SECRET),
        ends: Refused(&[PAGES, "is missing or not a file"]),
    },
    Hostile {
        name: "an image is a link to itself",
        make: |image| link(image, PAGES, PAGES),
        ends: Refused(&[PAGES, "is missing or not a file"]),
    },
    Hostile {
        name: "an image is a pipe",
        make: |image| special(image, PAGES, SFlag::S_IFIFO),
        ends: Refused(&[PAGES, "is not a file"]),
    },
    Hostile {
        name: "an image is a device",
        make: |image| special(image, PAGES, SFlag::S_IFCHR),
        ends: Refused(&[PAGES, "is not a file"]),
    },
    Hostile {
        name: "an image is a socket",
        make: |image| special(image, PAGES, SFlag::S_IFSOCK),
        ends: Refused(&[PAGES, "is missing or not a file"]),
    },
    Hostile {
        name: "an image is a directory",
        make: |image| directory(image, PAGES),
        ends: Refused(&[PAGES, "is not a file"]),
    },
    Hostile {
        name: "an image that others can change after it was verified",
        make: |image| Ok(fs::set_permissions(image.path(PAGES), Permissions::from_mode(0o666))?),
        ends: Refused(&[PAGES, "writable by others"]),
    },
    Hostile {
        name: "an image that belongs to a user",
        make: |image| Ok(chown(image.path(PAGES), Some(1000), None)?),
        ends: Refused(&[PAGES, "belongs to uid 1000"]),
    },
    Hostile {
        name: "an image is a hole of a tebibyte",
        make: |image| Ok(OpenOptions::new().write(true).open(image.path(PAGES))?.set_len(1 << 40)?),
        ends: Refused(&[PAGES, "another size"]),
    },
    Hostile {
        name: "an image is cut short",
        make: |image| Ok(OpenOptions::new().write(true).open(image.path(PAGES))?.set_len(4096)?),
        ends: Refused(&[PAGES, "another size"]),
    },
    Hostile {
        name: "one byte of an image is another",
        make: |image| {
            let file = OpenOptions::new().read(true).write(true).open(image.path(PAGES))?;
            let mut byte = [0];
            file.read_exact_at(&mut byte, 4097)?;
            Ok(file.write_all_at(&[byte[0] ^ 1], 4097)?)
        },
        ends: Refused(&[PAGES, "another content"]),
    },
    Hostile {
        name: "an image that the manifest does not know",
        make: |image| Ok(fs::write(image.path("mountpoints-13.img"), "x")?),
        ends: Refused(&["mountpoints-13.img", "is not in its manifest"]),
    },
    Hostile {
        name: "an earlier checkpoint, outside",
        make: |image| Ok(symlink("/srv/outside", image.path("parent"))?),
        ends: Refused(&["parent", "is not in its manifest"]),
    },
    Hostile {
        name: "the directory belongs to a user",
        make: |image| Ok(chown(image.directory(), Some(1000), None)?),
        ends: Refused(&["belongs to uid 1000"]),
    },
    Hostile {
        name: "the directory is everybody's",
        make: |image| Ok(fs::set_permissions(image.directory(), Permissions::from_mode(0o777))?),
        ends: Refused(&["writable by others"]),
    },
    Hostile {
        name: "the directory is a link",
        make: |image| {
            let elsewhere = image.directory().with_file_name("good");
            remove(image.directory())?;
            Ok(symlink(elsewhere.file_name().unwrap_or_default(), image.directory())?)
        },
        ends: Refused(&["could not open checkpoint"]),
    },
];

fn link(image: &Checkpoint, name: &str, target: &str) -> Result<()> {
    remove(&image.path(name))?;
    Ok(symlink(target, image.path(name))?)
}

/// A pipe, a socket, or the device that gives zeros.
fn special(image: &Checkpoint, name: &str, kind: SFlag) -> Result<()> {
    remove(&image.path(name))?;
    Ok(mknod(&image.path(name), kind, Mode::from_bits_truncate(0o600), makedev(1, 5))?)
}

fn directory(image: &Checkpoint, name: &str) -> Result<()> {
    remove(&image.path(name))?;
    Ok(fs::create_dir(image.path(name))?)
}
