//! Rounds packed from one directory and put back into another.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{symlink, FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use lz4_flex::frame::FrameEncoder;
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use crate::unpack::fill_root;
use crate::view::View;
use crate::{Error, Packer, Summary};

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn packer(upper: &Path, mounts: &str) -> Packer {
    let open = || File::open(upper).unwrap().into();
    Packer::new(View::parse(mounts.as_bytes(), b""), open(), open())
}

fn round(packer: &mut Packer) -> Vec<u8> {
    let mut archive = Vec::new();
    packer.round(&mut archive).unwrap();
    archive
}

fn put(archive: &[u8], root: &Path, mounts: &str) -> Result<Summary, Error> {
    fill_root(File::open(root).unwrap().into(), View::parse(mounts.as_bytes(), b""), archive)
}

/// Every path below `root`, with all that must travel.
fn describe(root: &Path) -> Vec<String> {
    let output = std::process::Command::new("sh")
        .args(["-c", "cd \"$0\" && find . -mindepth 1 -printf '%y %m %U %G %T@ %n %l %p\\0' | sort -z | tr '\\0\\n' '\\n?'; \
                      find . -type f -exec sha256sum {} + | sort"])
        .arg(root)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn fill_source(root: &Path) {
    let long = "d".repeat(120);
    fs::create_dir_all(root.join("a").join(&long)).unwrap();
    fs::write(root.join("a").join(&long).join("f".repeat(150)), "deep").unwrap();
    fs::write(root.join(OsStr::from_bytes(b"odd \xff\n name")), "odd").unwrap();
    fs::write(root.join("script"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(root.join("script"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(root.join("script"), root.join("a/same")).unwrap();
    symlink("./a//./same", root.join("link")).unwrap();
    symlink("/etc/".to_owned() + &"x".repeat(200), root.join("dangling")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), rustix::fs::FileType::Fifo, 0o620.into(), 0)
        .unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(b"island", 32 << 20).unwrap();
    fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o1771)).unwrap();
}

#[test]
fn everything_comes_back_as_it_was() {
    let (source, target) = (directory(), directory());
    fill_source(source.path());
    let name = "user.fastmig-test";
    let value = b"line\nfeed\0 and \xff";
    let script = source.path().join("script");
    let attributes = rustix::fs::setxattr(&script, name, value, rustix::fs::XattrFlags::empty()).is_ok();
    let archive = round(&mut packer(source.path(), ""));
    put(&archive, target.path(), "").unwrap();
    assert_eq!(describe(source.path()), describe(target.path()));
    let sparse = fs::metadata(target.path().join("sparse")).unwrap();
    assert!(sparse.blocks() * 512 < 1 << 20, "{} blocks", sparse.blocks());
    assert_eq!(fs::read_link(target.path().join("link")).unwrap().as_os_str(), "./a//./same");
    if attributes {
        let mut found = vec![0; 100];
        let length = rustix::fs::getxattr(target.path().join("script"), name, &mut found).unwrap();
        assert_eq!(&found[..length], value);
    }
    // Putting it back once more changes nothing.
    put(&archive, target.path(), "").unwrap();
    assert_eq!(describe(source.path()), describe(target.path()));
}

#[test]
fn a_later_round_brings_only_what_changed() {
    let (source, target) = (directory(), directory());
    fill_source(source.path());
    fs::create_dir_all(source.path().join("gone/below")).unwrap();
    fs::write(source.path().join("gone/below/file"), "x").unwrap();
    fs::write(source.path().join("kind"), "a file").unwrap();
    let mut packer = packer(source.path(), "");
    let first = round(&mut packer);

    fs::remove_dir_all(source.path().join("gone")).unwrap();
    fs::remove_file(source.path().join("link")).unwrap();
    fs::remove_file(source.path().join("kind")).unwrap();
    fs::create_dir(source.path().join("kind")).unwrap();
    fs::write(source.path().join("kind/now"), "a directory").unwrap();
    File::options().append(true).open(source.path().join("script")).unwrap().write_all(b"exit\n").unwrap();
    fs::rename(source.path().join("pipe"), source.path().join("a/pipe")).unwrap();
    let mut second = Vec::new();
    let summary = packer.round(&mut second).unwrap();
    assert!(summary.bytes < 100, "{summary:?}");

    put(&first, target.path(), "").unwrap();
    put(&second, target.path(), "").unwrap();
    assert_eq!(describe(source.path()), describe(target.path()));
    let mut third = Vec::new();
    assert_eq!(packer.round(&mut third).unwrap(), Summary::default());
}

#[test]
fn what_is_mounted_is_neither_packed_nor_touched() {
    const MOUNTS: &str = "1 0 0:1 / /etc/hosts rw - ext4 /dev/x rw\n2 0 0:1 / /proc rw - proc proc rw\n";
    let (source, target) = (directory(), directory());
    for root in [&source, &target] {
        fs::create_dir_all(root.path().join("etc")).unwrap();
        fs::create_dir_all(root.path().join("proc")).unwrap();
    }
    fs::write(source.path().join("etc/hosts"), "").unwrap();
    fs::write(source.path().join("etc/own"), "").unwrap();
    fs::write(target.path().join("etc/hosts"), "the host's").unwrap();
    let archive = round(&mut packer(source.path(), MOUNTS));
    put(&archive, target.path(), "").unwrap();
    assert_eq!(fs::read_to_string(target.path().join("etc/hosts")).unwrap(), "the host's");
    assert!(target.path().join("etc/own").exists());
    // An archive that names it all the same changes nothing either.
    for name in ["etc/hosts", "etc/.wh.hosts", "etc/.wh..wh..opq"] {
        put(&made(|archive| entry(archive, name, EntryType::Regular)), target.path(), MOUNTS).unwrap();
        assert_eq!(fs::read_to_string(target.path().join("etc/hosts")).unwrap(), "the host's", "{name}");
    }
}

fn made(fill: impl FnOnce(&mut Builder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut archive = Builder::new(&mut bytes);
    fill(&mut archive);
    entry(&mut archive, crate::names::END, EntryType::Regular);
    archive.finish().unwrap();
    drop(archive);
    let mut encoder = FrameEncoder::new(Vec::new());
    encoder.write_all(&bytes).unwrap();
    encoder.finish().unwrap()
}

/// An entry with whatever name: the builder's own functions refuse hostile ones.
fn entry(archive: &mut Builder<&mut Vec<u8>>, name: &str, kind: EntryType) {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(rustix::process::getuid().as_raw().into());
    header.set_gid(rustix::process::getgid().as_raw().into());
    header.set_size(0);
    header.set_cksum();
    archive.append(&header, io::empty()).unwrap();
}

#[test]
fn an_archive_that_leads_elsewhere_is_refused() {
    let outside = directory();
    let target = directory();
    fs::write(outside.path().join("victim"), "safe").unwrap();
    symlink(outside.path(), target.path().join("door")).unwrap();
    let victim = outside.path().join("victim").to_string_lossy().into_owned();
    for name in
        ["../victim", victim.as_str(), "door/victim", "door/.wh.victim", "door/.wh..wh..opq", "a/../../x"]
    {
        let archive = made(|archive| entry(archive, name, EntryType::Regular));
        let error = put(&archive, target.path(), "").unwrap_err();
        assert!(matches!(error, Error::Damaged { .. } | Error::OtherPath { .. }), "{name}: {error}");
    }
    assert_eq!(fs::read_to_string(outside.path().join("victim")).unwrap(), "safe");
    for kind in [EntryType::Block, EntryType::Char, EntryType::GNUSparse, EntryType::Continuous] {
        let archive = made(|archive| entry(archive, "device", kind));
        assert!(put(&archive, target.path(), "").is_err(), "{kind:?}");
    }
}

#[test]
fn a_broken_archive_is_an_error() {
    let (source, target) = (directory(), directory());
    fill_source(source.path());
    let archive = round(&mut packer(source.path(), ""));
    for length in [10, archive.len() / 2, archive.len() - 5] {
        assert!(put(&archive[..length], target.path(), "").is_err(), "{length} of {}", archive.len());
    }
    assert!(put(b"no archive at all", target.path(), "").is_err());
}
