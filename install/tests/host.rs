//! Whole installations in trees of files: done, repeated, interrupted, taken back.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fastmig_install::uninstall::{self, uninstall};
use fastmig_install::{install, preview, Error, Outcome, Site, Source};
use tempfile::TempDir;

const CONTAINERD: &str = "etc/containerd/config.toml";
const DOCKER: &str = "etc/docker/daemon.json";
const MANUAL: &str = "share/man/man8/fastmig.8";
const SETTINGS: &str = "etc/fastmig/config.toml";

/// A host with all clients, and a build of FastMig.
struct Host {
    dir: TempDir,
}

/// Each file's mode, content and time of change; each directory's mode.
type Snapshot = BTreeMap<PathBuf, (u32, Option<(Vec<u8>, SystemTime)>)>;

impl Host {
    fn new() -> Self {
        let host = Self { dir: tempfile::tempdir().unwrap() };
        for program in ["usr/bin/containerd", "usr/sbin/dockerd", "usr/bin/podman"] {
            host.write(program, "");
        }
        host.write(
            CONTAINERD,
            "version = 2\n# mine\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"p\"\n",
        );
        host.write(DOCKER, "{\n  \"debug\": true\n}\n");
        fs::set_permissions(host.path(DOCKER), Permissions::from_mode(0o640)).unwrap();
        fs::create_dir_all(host.path("usr/local/bin")).unwrap();
        host.build("1");
        host
    }

    fn build(&self, version: &str) {
        for name in [
            "bin/fastmig",
            "bin/containerd-shim-fastmig-v1",
            "bin/fastmigd",
            "bin/fastmig-store",
            "bin/fastmig-report",
            "bin/fastmig-hook",
            "libexec/fastmig-init",
            "libexec/criu/bundle.json",
        ] {
            self.write_to(&self.dist().join(name), &format!("{name} {version}"));
        }
        for name in [
            "bin/fastmig",
            "bin/fastmigd",
            "bin/containerd-shim-fastmig-v1",
            "bin/fastmig-store",
            "bin/fastmig-report",
            "bin/fastmig-hook",
            "libexec/fastmig-init",
        ] {
            fs::set_permissions(self.dist().join(name), Permissions::from_mode(0o700)).unwrap();
        }
        fs::create_dir_all(self.dist().join("libexec/criu/plugins")).unwrap();
        self.write_to(&self.dist().join(MANUAL), ".TH fastmig 8");
    }

    fn dist(&self) -> PathBuf {
        self.dir.path().join("dist")
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join("root").join(path)
    }

    fn write(&self, path: &str, content: &str) {
        self.write_to(&self.path(path), content);
    }

    fn write_to(&self, path: &Path, content: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    fn append(&self, path: &str, line: &str) {
        self.write(path, &(self.read(path) + line));
    }

    fn site(&self) -> Site {
        Site::new(&self.path("")).unwrap()
    }

    fn source(&self) -> Source {
        Source::directory(&self.dist()).unwrap()
    }

    fn install(&self) -> Result<Outcome, Error> {
        install(&self.site(), &self.source(), &mut |_| {})
    }

    fn uninstall(&self) -> Result<Outcome, Error> {
        uninstall(&self.site())
    }

    /// Dies at the step of this number, as a killed program does; answers whether there was one.
    fn killed_at(&self, step: usize) -> bool {
        let mut steps = 0..step;
        catch_unwind(AssertUnwindSafe(|| {
            install(&self.site(), &self.source(), &mut |_| {
                assert!(steps.next().is_some(), "killed");
            })
        }))
        .is_err()
    }

    fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::new();
        add(&self.path(""), &mut snapshot);
        snapshot
    }
}

fn add(path: &Path, snapshot: &mut Snapshot) {
    let metadata = fs::symlink_metadata(path).unwrap();
    if !metadata.is_dir() {
        let content = (fs::read(path).unwrap(), metadata.modified().unwrap());
        snapshot.insert(path.into(), (metadata.mode(), Some(content)));
        return;
    }
    snapshot.insert(path.into(), (metadata.mode(), None));
    for entry in fs::read_dir(path).unwrap() {
        add(&entry.unwrap().path(), snapshot);
    }
}

#[test]
fn what_is_installed_is_all_there_and_goes_again() {
    let host = Host::new();
    let before = host.snapshot();
    let done = host.install().unwrap();
    assert_eq!(done.restart, ["containerd", "docker"]);
    assert_eq!(host.read("usr/local/bin/fastmig"), "bin/fastmig 1");
    let mode = |path| fs::metadata(host.path(path)).unwrap().mode() & 0o7777;
    assert_eq!(mode("usr/local/bin/fastmig"), 0o755);
    assert_eq!(mode("usr/lib/fastmig/runtime/criu/bundle.json"), 0o644);
    assert_eq!(mode(DOCKER), 0o640);
    assert_eq!(mode("var/lib/fastmig/install"), 0o700, "everybody may read the copies");
    assert_eq!(host.read("usr/lib/fastmig/runtime/fastmig-init"), "libexec/fastmig-init 1");
    assert!(host.path("usr/lib/fastmig/runtime/criu/plugins").is_dir());
    assert_eq!(host.read("usr/local/share/man/man8/fastmig.8"), ".TH fastmig 8");
    assert!(host.read(CONTAINERD).contains("fastmig-oci") && host.read(CONTAINERD).contains("# mine"));
    assert!(host.read(DOCKER).contains("/usr/local/bin/fastmig") && host.read(DOCKER).contains("debug"));
    assert!(host.read("etc/containers/containers.conf.d/50-fastmig.conf").contains("[engine.runtimes]"));

    let installed = host.snapshot();
    let again = host.install().unwrap();
    assert_eq!((again.changes, again.restart), (vec![], vec![]));
    assert_eq!(host.snapshot(), installed);

    let would = uninstall::preview(&host.site()).unwrap();
    assert_eq!(host.snapshot(), installed);
    let undone = host.uninstall().unwrap();
    assert_eq!(undone, would);
    assert_eq!(undone.notes, Vec::<String>::new());
    assert_eq!(host.snapshot(), before);
    assert_eq!(host.uninstall().unwrap(), Outcome::default());
    assert_eq!(host.snapshot(), before);
}

#[test]
fn a_preview_changes_nothing_and_shows_every_line() {
    let host = Host::new();
    let before = host.snapshot();
    let plan = preview(&host.site(), &host.source()).unwrap();
    assert_eq!(host.snapshot(), before);
    let diffs: String = plan.changes.iter().filter_map(fastmig_install::Change::diff).collect();
    for line in [
        "--- /etc/containerd/config.toml",
        "+  runtime_type = \"io.containerd.fastmig.v1\"",
        "+    \"fastmig\": {",
    ] {
        assert!(diffs.contains(line), "{line} is not in\n{diffs}");
    }
    let lines: Vec<String> = plan.changes.iter().map(fastmig_install::Change::line).collect();
    assert_eq!(lines, host.install().unwrap().changes);
}

#[test]
fn a_killed_installation_is_taken_back_from_every_step() {
    let steps = preview(&Host::new().site(), &Host::new().source()).unwrap().changes.len() * 2;
    for step in 0..steps {
        let host = Host::new();
        let before = host.snapshot();
        assert!(host.killed_at(step), "there is no step {step}");
        assert!(host.uninstall().unwrap().notes[0].contains("interrupted"));
        assert_eq!(host.snapshot(), before, "step {step}");
    }
    assert!(!Host::new().killed_at(steps));
}

#[test]
fn a_killed_installation_is_completed_by_the_next() {
    let host = Host::new();
    let before = host.snapshot();
    assert!(host.killed_at(5));
    let done = host.install().unwrap();
    assert!(done.notes[0].contains("interrupted"), "{done:?}");
    assert_eq!(
        done.changes.len(),
        preview(&Host::new().site(), &Host::new().source()).unwrap().changes.len()
    );
    host.uninstall().unwrap();
    assert_eq!(host.snapshot(), before);
}

#[test]
fn a_failure_half_way_leaves_nothing() {
    let host = Host::new();
    let before = host.snapshot();
    let drop_ins = host.path("etc/containers/containers.conf.d");
    // The last change of all cannot be made.
    let error = install(&host.site(), &host.source(), &mut |change| {
        if change.path().ends_with("50-fastmig.conf") {
            fs::remove_dir(&drop_ins).unwrap();
        }
    })
    .unwrap_err();
    assert!(matches!(error, Error::Undone { .. }), "{error}");
    assert!(error.to_string().contains("50-fastmig.conf"), "{error}");
    assert_eq!(host.snapshot(), before);
}

#[test]
fn a_newer_version_replaces_the_programs_and_goes_with_them() {
    let host = Host::new();
    host.write("usr/local/bin/fastmig", "the operator's own");
    let before = host.snapshot();
    host.install().unwrap();
    let first = host.snapshot();
    host.build("2");
    assert!(host.killed_at(3));
    // The step back from the second version is the first.
    let done = host.install().unwrap();
    assert!(done.changes.iter().all(|line| line.starts_with("change ")), "{done:?}");
    assert_eq!(host.read("usr/local/bin/fastmig"), "bin/fastmig 2");
    assert_eq!(host.snapshot().len(), first.len());
    host.uninstall().unwrap();
    assert_eq!(host.snapshot(), before);
}

#[test]
fn what_others_changed_since_stays_theirs() {
    let host = Host::new();
    host.install().unwrap();
    host.append(CONTAINERD, "[grpc]\naddress = \"/mine\"\n");
    host.write(DOCKER, &host.read(DOCKER).replace("true", "false"));
    host.append(SETTINGS, "# mine\n");
    let program = host.path("usr/local/bin/containerd-shim-fastmig-v1");
    fs::write(&program, b"\x7fELF\xff").unwrap();
    let undone = host.uninstall().unwrap();
    assert_eq!(undone.notes.len(), 3, "{undone:?}");
    let places = [SETTINGS, "etc/fastmig/ is not empty", "bin/containerd-shim-fastmig-v1"];
    for (note, place) in undone.notes.iter().zip(places) {
        assert!(note.contains(place), "{undone:?}");
    }
    assert_eq!(fs::read(program).unwrap(), b"\x7fELF\xff");
    let containerd = host.read(CONTAINERD);
    assert!(
        containerd.contains("/mine")
            && containerd.contains("sandbox_image")
            && !containerd.contains("fastmig"),
        "{containerd}"
    );
    assert_eq!(host.read(DOCKER), "{\n  \"debug\": false\n}\n");
    assert!(host.read(SETTINGS).ends_with("# mine\n"));
    assert!(!host.path("usr/local/bin/fastmig").exists());
    assert!(!host.path("var").exists(), "the journal stays");
}

#[test]
fn what_others_changed_between_two_installations_stays_theirs() {
    let host = Host::new();
    host.install().unwrap();
    // Another tool has written the file, and knows only one of ours.
    host.append(CONTAINERD, "[grpc]\naddress = \"/mine\"\n");
    host.write(CONTAINERD, &host.read(CONTAINERD).replace("runtimes.fastmig-oci", "runtimes.mine"));
    host.write(DOCKER, "{\n  \"debug\": false\n}\n");
    host.write("usr/local/bin/fastmig", "the operator's own");
    assert_eq!(host.install().unwrap().changes.len(), 3);
    host.uninstall().unwrap();
    let containerd = host.read(CONTAINERD);
    assert!(
        containerd.contains("address = \"/mine\"")
            && containerd.contains("runtimes.mine")
            && !containerd.contains("containerd-shim-fastmig"),
        "{containerd}"
    );
    assert_eq!(host.read(DOCKER), "{\n  \"debug\": false\n}\n");
    assert_eq!(host.read("usr/local/bin/fastmig"), "the operator's own");
}

#[test]
fn a_broken_file_is_named_and_nothing_changes() {
    for (file, text, line) in [(CONTAINERD, "version = 2\n[plugins\n", 2), (DOCKER, "{\n\n\"a\": }\n", 3)] {
        let host = Host::new();
        host.write(file, text);
        let before = host.snapshot();
        let error = host.install().unwrap_err().to_string();
        assert!(error.starts_with(&format!("/{file}, line {line}: ")), "{error}");
        assert_eq!(host.snapshot(), before);
    }
}

#[test]
fn a_file_broken_since_stops_the_way_back_before_it_begins() {
    let host = Host::new();
    let before = host.snapshot();
    host.install().unwrap();
    let (installed, good) = (host.snapshot(), host.read(DOCKER));
    host.write(DOCKER, "{\n");
    let error = host.uninstall().unwrap_err().to_string();
    assert!(error.starts_with(&format!("/{DOCKER}, line ")), "{error}");
    assert_eq!(host.snapshot().len(), installed.len());
    host.write(DOCKER, &good);
    host.uninstall().unwrap();
    assert_eq!(host.snapshot(), before);
}

#[test]
fn clients_that_are_not_there_are_left_alone_and_named() {
    let host = Host::new();
    for program in ["usr/bin/containerd", "usr/sbin/dockerd", "usr/bin/podman"] {
        fs::remove_file(host.path(program)).unwrap();
    }
    let done = host.install().unwrap();
    assert_eq!(done.notes.len(), 3, "{done:?}");
    assert!(!host.read(CONTAINERD).contains("fastmig") && !host.read(DOCKER).contains("fastmig"));
    assert_eq!(done.restart, Vec::<String>::new());
}

#[test]
fn what_a_package_has_installed_is_left_to_it() {
    let host = Host::new();
    host.write("var/lib/dpkg/info/fastmig.prerm", "");
    let before = host.snapshot();
    assert!(matches!(host.install().unwrap_err(), Error::Packaged));
    assert_eq!(host.snapshot(), before);
}

#[test]
fn two_at_once_do_not_meet() {
    let host = Host::new();
    let mut second = None;
    install(&host.site(), &host.source(), &mut |_| {
        second.get_or_insert_with(|| host.uninstall().unwrap_err());
    })
    .unwrap();
    assert!(matches!(second, Some(Error::Busy { .. })), "{second:?}");
}

#[test]
fn a_journal_of_another_kind_is_not_touched() {
    let host = Host::new();
    host.write("var/lib/fastmig/install.json", "{}");
    let before = host.snapshot();
    for error in [host.install().unwrap_err(), host.uninstall().unwrap_err()] {
        assert!(matches!(error, Error::Journal { .. }), "{error}");
    }
    assert_eq!(host.snapshot(), before);
}
