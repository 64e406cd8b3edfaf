//! Rounds packed from one directory and put back into another.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{symlink, FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use lz4_flex::frame::FrameEncoder;
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use crate::names::{self, Mark};
use crate::unpack::fill_root;
use crate::view::View;
use crate::walk::Entry;
use crate::{Error, Packer, Summary, Volumes};

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn packer(upper: &Path, mounts: &str) -> Packer {
    packer_on(upper, mounts, false)
}

/// The file system that the tests happen to run on decides nothing.
fn packer_on(upper: &Path, mounts: &str, in_memory: bool) -> Packer {
    let open = || File::open(upper).unwrap().into();
    Packer::new(View::parse(mounts.as_bytes(), b"", &Volumes::default()), open(), open(), in_memory)
}

fn round(packer: &mut Packer) -> Vec<u8> {
    summed_round(packer).0
}

fn summed_round(packer: &mut Packer) -> (Vec<u8>, Summary) {
    let mut archive = Vec::new();
    let summary = packer.round(&mut archive, &BTreeSet::new()).unwrap();
    (archive, summary)
}

/// Until what was written lies so far back that its time tells it from what is written now.
fn settle() {
    std::thread::sleep(Duration::from_millis(1100));
}

fn put(archive: &[u8], root: &Path, mounts: &str) -> Result<Summary, Error> {
    fill_root(
        File::open(root).unwrap().into(),
        View::parse(mounts.as_bytes(), b"", &Volumes::default()),
        archive,
    )
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
    settle();
    let first = round(&mut packer);

    fs::remove_dir_all(source.path().join("gone")).unwrap();
    fs::remove_file(source.path().join("link")).unwrap();
    fs::remove_file(source.path().join("kind")).unwrap();
    fs::create_dir(source.path().join("kind")).unwrap();
    fs::write(source.path().join("kind/now"), "a directory").unwrap();
    File::options().append(true).open(source.path().join("script")).unwrap().write_all(b"exit\n").unwrap();
    fs::rename(source.path().join("pipe"), source.path().join("a/pipe")).unwrap();
    settle();
    let (second, summary) = summed_round(&mut packer);
    assert!(summary.bytes < 100, "{summary:?}");

    put(&first, target.path(), "").unwrap();
    put(&second, target.path(), "").unwrap();
    assert_eq!(describe(source.path()), describe(target.path()));
    assert_eq!(summed_round(&mut packer).1, Summary::default());
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
    for (name, mark) in [("etc/hosts", None), ("etc/hosts", Some(Mark::Gone)), ("etc", Some(Mark::Emptied))] {
        put(&made(|archive| entry(archive, name, mark)), target.path(), MOUNTS).unwrap();
        assert_eq!(fs::read_to_string(target.path().join("etc/hosts")).unwrap(), "the host's", "{name}");
    }
    assert!(!target.path().join("etc/own").exists());
}

/// An archive with an end.
fn made(fill: impl FnOnce(&mut Builder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut archive = Builder::new(&mut bytes);
    fill(&mut archive);
    entry(&mut archive, "end", Some(Mark::End));
    archive.finish().unwrap();
    drop(archive);
    let mut encoder = FrameEncoder::new(Vec::new());
    encoder.write_all(&bytes).unwrap();
    encoder.finish().unwrap()
}

/// A file, or what it is marked as.
fn entry(archive: &mut Builder<&mut Vec<u8>>, name: &str, mark: Option<Mark>) {
    let records = mark.map(|mark| (names::MARK, mark.text().as_bytes()));
    archive.append_pax_extensions(records).unwrap();
    raw(archive, name, EntryType::Regular, 0, io::empty());
}

/// An entry with whatever name: the builder's own functions refuse hostile ones.
fn raw(archive: &mut Builder<&mut Vec<u8>>, name: &str, kind: EntryType, size: u64, content: impl Read) {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(rustix::process::getuid().as_raw().into());
    header.set_gid(rustix::process::getgid().as_raw().into());
    header.set_size(size);
    header.set_cksum();
    archive.append(&header, content).unwrap();
}

#[test]
fn an_archive_that_leads_elsewhere_is_refused() {
    let outside = directory();
    let target = directory();
    fs::write(outside.path().join("victim"), "safe").unwrap();
    symlink(outside.path(), target.path().join("door")).unwrap();
    let victim = outside.path().join("victim").to_string_lossy().into_owned();
    let cases = [
        ("../victim", None),
        (victim.as_str(), None),
        ("door/victim", None),
        ("a/../../x", None),
        ("door/victim", Some(Mark::Gone)),
        ("../victim", Some(Mark::Gone)),
        ("door", Some(Mark::Emptied)),
        ("..", Some(Mark::Emptied)),
        ("", Some(Mark::Emptied)),
    ];
    for (name, mark) in cases {
        let error = put(&made(|archive| entry(archive, name, mark)), target.path(), "").unwrap_err();
        assert!(matches!(error, Error::Damaged { .. } | Error::OtherPath { .. }), "{name}: {error}");
    }
    assert_eq!(fs::read_to_string(outside.path().join("victim")).unwrap(), "safe");
    for kind in [EntryType::Block, EntryType::Char, EntryType::GNUSparse, EntryType::Continuous] {
        let archive = made(|archive| raw(archive, "device", kind, 0, io::empty()));
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

#[test]
fn what_took_a_files_place_is_not_opened() {
    let source = directory();
    let parent = File::open(source.path()).unwrap();
    let path = source.path().join("name");
    fs::write(&path, "a file").unwrap();
    let stat = rustix::fs::lstat(&path).unwrap();
    let name = OsStr::new("name");
    let entry = Entry { parent: parent.as_fd(), name, path: Path::new(name), stat };
    let mut content = String::new();
    entry.open_file().unwrap().read_to_string(&mut content).unwrap();
    assert_eq!(content, "a file");

    fs::rename(&path, source.path().join("kept")).unwrap();
    rustix::fs::mknodat(&parent, "name", rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert_eq!(entry.open_file().unwrap_err().kind(), io::ErrorKind::NotFound, "a pipe");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "another").unwrap();
    assert_eq!(entry.open_file().unwrap_err().kind(), io::ErrorKind::NotFound, "another file");
}

#[test]
fn what_takes_a_directorys_place_is_put_in_its_place() {
    for with_link in [false, true] {
        let (source, target) = (directory(), directory());
        fs::create_dir_all(source.path().join("a/b/c")).unwrap();
        fs::write(source.path().join("a/b/file"), "x").unwrap();
        let mut packer = packer(source.path(), "");
        put(&round(&mut packer), target.path(), "").unwrap();

        fs::remove_dir_all(source.path().join("a")).unwrap();
        if with_link {
            symlink("/", source.path().join("a")).unwrap();
        } else {
            fs::write(source.path().join("a"), "a file").unwrap();
        }
        put(&round(&mut packer), target.path(), "").unwrap();
        assert_eq!(describe(source.path()), describe(target.path()));
    }
}

#[test]
fn what_was_written_right_before_it_was_read_is_packed_again() {
    let source = directory();
    fs::write(source.path().join("file"), "fresh").unwrap();
    let mut packer = packer(source.path(), "");
    assert_eq!(summed_round(&mut packer).1.bytes, 5);
    settle();
    // A second write in the same tick would have left the same time.
    assert_eq!(summed_round(&mut packer).1.bytes, 5);
    assert_eq!(summed_round(&mut packer).1, Summary::default());
}

#[test]
fn files_in_memory_are_always_packed_again() {
    let source = directory();
    fs::create_dir(source.path().join("cache")).unwrap();
    fs::write(source.path().join("cache/file"), "1234").unwrap();
    fs::write(source.path().join("own"), "12").unwrap();
    settle();
    let mount = "1 0 0:99 / /cache rw - tmpfs tmpfs rw\n";
    for (in_memory, again) in [(false, 4), (true, 6)] {
        let mut packer = packer_on(source.path(), mount, in_memory);
        assert_eq!(summed_round(&mut packer).1.bytes, 6);
        assert_eq!(summed_round(&mut packer).1.bytes, again, "{in_memory}");
    }
}

#[test]
fn no_name_of_a_file_has_a_meaning() {
    let (source, target) = (directory(), directory());
    fs::create_dir(source.path().join("a")).unwrap();
    for name in [".wh..wh..end", ".wh.kept", "kept", "a/.wh..wh..opq", "a/kept", "a/.wh.", "a/.wh..", "end"] {
        fs::write(source.path().join(name), name).unwrap();
    }
    put(&round(&mut packer(source.path(), "")), target.path(), "").unwrap();
    assert_eq!(describe(source.path()), describe(target.path()));
}

/// Directories in each other, further than one path or the limit of open files reaches.
fn dig(root: &Path, depth: usize) {
    let mut deepest = File::open(root).unwrap();
    for _ in 0..depth {
        rustix::fs::mkdirat(&deepest, "d", 0o755.into()).unwrap();
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        deepest = rustix::fs::openat(&deepest, "d", flags, 0o755.into()).unwrap().into();
    }
}

/// Whatever the limit of open files is.
fn remove_tree(path: &Path) {
    assert!(std::process::Command::new("rm").arg("-rf").arg(path).status().unwrap().success());
}

#[test]
fn a_deep_tree_travels_and_is_removed() {
    let (source, target) = (directory(), directory());
    dig(source.path(), 1900);
    let mut packer = packer(source.path(), "");
    put(&round(&mut packer), target.path(), "").unwrap();
    assert_eq!(describe(target.path()).len(), 1900);
    remove_tree(&source.path().join("d"));
    put(&round(&mut packer), target.path(), "").unwrap();
    assert!(!target.path().join("d").exists());
}

#[test]
fn a_tree_that_no_path_reaches_is_named() {
    let source = directory();
    dig(source.path(), 2100);
    let error = packer(source.path(), "").round(io::sink(), &BTreeSet::new()).unwrap_err();
    assert!(matches!(error, Error::TooDeep { .. }), "{error}");
    assert!(error.to_string().contains("\"d/d/d\""), "{error}");
    remove_tree(&source.path().join("d"));
}

#[test]
fn extension_headers_are_not_read_without_limit() {
    let target = directory();
    for kind in [EntryType::XHeader, EntryType::GNULongName, EntryType::GNULongLink] {
        let size = names::RECORDS_LIMIT as u64 + 1;
        let archive = made(|archive| {
            raw(archive, "huge", kind, size, io::repeat(b'x').take(size));
            entry(archive, "file", None);
        });
        let error = put(&archive, target.path(), "").unwrap_err();
        assert!(error.to_string().contains("of more than 1 MiB"), "{kind:?}: {error}");
        let archive = made(|archive| {
            for _ in 0..2 {
                raw(archive, "small", kind, 1, &b"x"[..]);
            }
            entry(archive, "file", None);
        });
        let error = put(&archive, target.path(), "").unwrap_err();
        assert!(error.to_string().contains("second extension header"), "{kind:?}: {error}");
    }
}

#[test]
fn holes_that_make_no_sense_are_refused() {
    let target = directory();
    for record in ["10 0+4", "10 0+2,1+1", "2 0+3", "18446744073709551615 0+3", "holes"] {
        let archive = made(|archive| {
            archive.append_pax_extensions([(names::SPARSE, record.as_bytes())]).unwrap();
            raw(archive, "file", EntryType::Regular, 3, &b"abc"[..]);
        });
        let error = put(&archive, target.path(), "").unwrap_err();
        assert!(error.to_string().contains("holes that make no sense"), "{record}: {error}");
    }
    let archive = made(|archive| {
        archive.append_pax_extensions([(names::SPARSE, &b"10 1+2,7+1"[..])]).unwrap();
        raw(archive, "file", EntryType::Regular, 3, &b"abc"[..]);
    });
    put(&archive, target.path(), "").unwrap();
    assert_eq!(fs::read(target.path().join("file")).unwrap(), b"\0ab\0\0\0\0c\0\0");
}
