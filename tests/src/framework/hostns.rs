//! The inside of a host: how a process becomes PID 1 of a Debian machine of its own.
//!
//! Two stages, each a process of this very program ([`run_if_asked`]), so that no code runs between fork and exec. The first
//! enters the host's cgroups and makes the namespaces; the second, PID 1 in them, mounts everything, pivots into the new root
//! and becomes `tini`, which reaps orphans. All mounts live in the host's mount namespace: they go with its last process.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{bail, Context, Result};
use nix::mount::{mount, umount2, MntFlags, MsFlags};
use nix::sched::{unshare, CloneFlags};
use nix::unistd::{chdir, pivot_root, sethostname, setsid};

use super::cgroups;
use super::command::host_environment;
use super::process::{pid_of, wait_until, ProcessId};
use super::state::HostState;

/// The first argument that makes a program a stage of a host.
const MARK: &str = "__fastmig-host";

/// containerd's snapshotter puts its upper directories here, and overlayfs takes none that lies on an overlay. In memory,
/// for the unpacked images go with the host then; to delete them from a disk can take ten seconds.
const CONTAINERD: &str = "var/lib/containerd";

/// FastMig's own data, on the machine's disk.
const FASTMIG: &str = "var/lib/fastmig";

/// Becomes a stage of a host when the arguments say so. Every program that brings hosts up calls it first.
pub fn run_if_asked() {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let [mark, stage, state] = arguments.as_slice() else { return };
    if mark != MARK {
        return;
    }
    let result = HostState::read(Path::new(state)).and_then(|host| {
        if stage == "1" {
            first_stage(&host)
        } else {
            second_stage(&host)
        }
    });
    if let Err(error) = &result {
        eprintln!("{error:#}");
    }
    std::process::exit(i32::from(result.is_err()));
}

/// The command line of a stage.
pub(crate) fn stage(stage: &str, host: &HostState) -> Result<Vec<String>> {
    let state = host.file().to_str().context("a path that is not UTF-8")?.to_owned();
    Ok(vec!["/proc/self/exe".to_owned(), MARK.to_owned(), stage.to_owned(), state])
}

fn first_stage(host: &HostState) -> Result<()> {
    cgroups::enter_own(&host.cgroups)?;
    let namespaces = CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(namespaces).context("cannot make namespaces; root is needed")?;
    cgroups::settle(&host.cgroups)?;
    let argv = stage("2", host)?;
    let mut child =
        Command::new(&argv[0]).args(&argv[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    host.save_init(ProcessId::of(pid_of(&child))?)?;
    wait_for_init(&mut child)
}

/// The pipe ends when the second stage becomes PID 1 proper, or dies.
fn wait_for_init(child: &mut Child) -> Result<()> {
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_end(&mut Vec::new())?;
    }
    let name = format!("/proc/{}/comm", child.id());
    let is_init = || fs::read_to_string(&name).is_ok_and(|name| name.trim() == "tini");
    let mut status = None;
    wait_until(Duration::from_secs(5), || {
        status = child.try_wait().ok().flatten();
        status.is_some() || is_init()
    })?;
    match status {
        None => Ok(()),
        Some(status) => bail!("the host's PID 1 ended at once: {status}"),
    }
}

fn second_stage(host: &HostState) -> Result<()> {
    // Away from the caller's terminal, whose interrupt must not end the host.
    setsid()?;
    sethostname(host.hostname())?;
    // Only now, for the first stage still looks at this machine's /proc.
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount_at(None, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None)?;
    let root = mount_root(host)?;
    mount_kernel(&root)?;
    mount_dev(&root)?;
    mount_cgroups(host, &root)?;
    fs::create_dir_all(root.join(CONTAINERD))?;
    tmpfs(&root.join(CONTAINERD), "mode=711")?;
    bind(&host.disk.join("fastmig"), &root.join(FASTMIG))?;
    bind(&host.shared, &root.join("shared"))?;
    enter_root(&root)?;
    furnish(host)?;
    let mut init = Command::new("tini");
    init.args(["-s", "--", "sleep", "infinity"]).env_clear().envs(host_environment());
    init.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Err(init.exec()).context("cannot start tini")
}

fn mount_root(host: &HostState) -> Result<std::path::PathBuf> {
    let (root, disk) = (host.disk.join("root"), &host.disk);
    let (lower, upper, work) = (host.root.display(), disk.join("upper"), disk.join("work"));
    let options = format!("lowerdir={lower},upperdir={},workdir={}", upper.display(), work.display());
    mount_at(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(&options))?;
    Ok(root)
}

fn mount_kernel(root: &Path) -> Result<()> {
    let guarded = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_at(Some("proc"), &root.join("proc"), Some("proc"), guarded, None)?;
    mount_at(Some("sysfs"), &root.join("sys"), Some("sysfs"), guarded, None)?;
    // CRIU keeps what it learnt of the kernel in /run, and only on a tmpfs.
    tmpfs(&root.join("run"), "mode=755")?;
    tmpfs(&root.join("tmp"), "mode=1777")
}

fn mount_dev(root: &Path) -> Result<()> {
    let dev = root.join("dev");
    tmpfs(&dev, "mode=755")?;
    for dir in ["net", "pts", "shm", "mqueue"] {
        fs::create_dir(dev.join(dir))?;
    }
    let nodes =
        ["null", "zero", "full", "random", "urandom", "tty", "fuse", "net/tun", "kvm", "cpu_dma_latency"];
    for node in nodes {
        let source = Path::new("/dev").join(node);
        if source.exists() {
            File::create(dev.join(node))?;
            bind(&source, &dev.join(node))?;
        }
    }
    let options = "newinstance,ptmxmode=0666,mode=620,gid=5";
    mount_at(
        Some("devpts"),
        &dev.join("pts"),
        Some("devpts"),
        MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        Some(options),
    )?;
    tmpfs(&dev.join("shm"), "mode=1777")?;
    mount_at(Some("mqueue"), &dev.join("mqueue"), Some("mqueue"), MsFlags::empty(), None)?;
    let links = [("pts/ptmx", "ptmx"), ("/proc/self/fd", "fd")];
    let streams =
        [("/proc/self/fd/0", "stdin"), ("/proc/self/fd/1", "stdout"), ("/proc/self/fd/2", "stderr")];
    for (target, name) in links.iter().chain(&streams) {
        symlink(target, dev.join(name))?;
    }
    Ok(())
}

fn mount_cgroups(host: &HostState, root: &Path) -> Result<()> {
    let top = root.join(cgroups::MOUNT_ROOT.trim_start_matches('/'));
    let unified = host.cgroups.iter().any(cgroups::Hierarchy::is_unified);
    if !unified {
        tmpfs(&top, "mode=755")?;
    }
    for hierarchy in &host.cgroups {
        let place = top.join(&hierarchy.place);
        fs::create_dir_all(&place)?;
        let options = Some(hierarchy.options.as_str()).filter(|options| !options.is_empty());
        mount_at(Some("cgroup"), &place, Some(&hierarchy.fs_type), MsFlags::empty(), options)?;
    }
    Ok(())
}

/// A real pivot_root: CRIU finds no parent for the mounts of a chroot.
fn enter_root(root: &Path) -> Result<()> {
    chdir(root)?;
    pivot_root(".", ".").context("cannot pivot into the host's root")?;
    umount2(".", MntFlags::MNT_DETACH).context("cannot leave the old root")?;
    chdir("/").context("cannot enter the host's root")
}

fn furnish(host: &HostState) -> Result<()> {
    fs::write("/etc/hostname", host.hostname() + "\n")?;
    fs::write("/etc/hosts", format!("127.0.0.1 localhost\n{} {}\n", host.address(), host.hostname()))?;
    for dir in ["/run/lock", "/etc/fastmig", "/usr/lib/fastmig/runtime"] {
        fs::create_dir_all(dir)?;
    }
    fs::set_permissions("/run/lock", fs::Permissions::from_mode(0o1777))?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot forward packets")?;
    // Lazy pages need large pipes where root lacks CAP_SYS_RESOURCE; it is the machine's own setting, so it may be refused.
    let _ = fs::write("/proc/sys/fs/pipe-max-size", "16777216");
    Ok(())
}

fn tmpfs(target: &Path, options: &str) -> Result<()> {
    mount_at(Some("tmpfs"), target, Some("tmpfs"), MsFlags::empty(), Some(options))
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    if source.is_dir() {
        fs::create_dir_all(target)?;
    }
    mount_at(source.to_str(), target, None, MsFlags::MS_BIND, None)
}

fn mount_at(
    source: Option<&str>,
    target: &Path,
    fs_type: Option<&str>,
    flags: MsFlags,
    options: Option<&str>,
) -> Result<()> {
    mount(source, target, fs_type, flags, options).with_context(|| {
        format!("cannot mount {} at {}", fs_type.or(source).unwrap_or("nothing"), target.display())
    })
}
