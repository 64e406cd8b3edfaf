//! A machine that stays up: booted from the disk of [`super::system`], or taken as it then was, entered by ssh, and gone with
//! its guard.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{bail, Context, Result};
use nix::fcntl::Flock;
use tempfile::TempDir;

use super::saved::Saved;
use super::{early, machine, system, Kernel};
use crate::framework::background::Background;
use crate::framework::cache::Cache;
use crate::framework::command::last_lines;
use crate::framework::process::wait_until;
use crate::framework::{Cmd, Output};

/// From power on to the first command. Emulated, and on a machine that others keep busy.
const BOOT_LIMIT: Duration = Duration::from_secs(400);

/// For a command: all is ten to twenty times slower than outside.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// Of one attempt to get in.
const KNOCK_LIMIT: Duration = Duration::from_secs(20);

const MACHINE: &[&str] = &[
    "-M",
    "q35",
    "-accel",
    "tcg,thread=multi,tb-size=512",
    "-cpu",
    "max,-la57",
    // The emulator lets a second processor run into code that the kernel is just changing, and that is its end.
    "-smp",
    "1",
    "-m",
    "1536M",
    "-nodefaults",
    "-display",
    "none",
    "-device",
    "virtio-rng-pci",
];

/// Nothing is to be hidden in an emulation, and mitigations only make it slower.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=10 mitigations=off net.ifnames=0";

/// What the payload's disk holds, empty or not: a machine that goes on finds a disk of the same size.
pub(super) const DISK_BYTES: u64 = 6 << 30;

/// Makes an ext4 of the tree `$2`, with `$3` in it, in the file `$1`.
const PAYLOAD: &str = r#"
mkdir -p "$2/containerd"
mount --bind "$3" "$2/containerd"
truncate -s 6G "$1"
mke2fs -q -t ext4 -E lazy_itable_init=1 -d "$2" "$1"
"#;

/// Finds the payload, also after a reboot; containerd must not come up before.
const MOUNT: &str = "
mountpoint -q /payload && exit
mkdir -p /payload
cat >>/etc/fstab <<'X'
/dev/vdb /payload ext4 rw,noatime 0 0
/payload/containerd /var/lib/containerd none bind 0 0
X
systemctl daemon-reload
systemctl stop containerd
mount /payload
mount /var/lib/containerd
systemctl start containerd
sync
";

/// What several nodes have in common: the keys to them, their network, and that nobody else runs machines.
#[derive(Debug)]
pub struct Site {
    cache: Cache,
    directory: PathBuf,
    /// Not where others boot the machines. Without the lock where the caller has it.
    ours: Option<(TempDir, Option<Flock<fs::File>>)>,
}

/// How a machine comes up.
pub(super) enum Start<'a> {
    /// By its kernel, on a disk that keeps what is written; QEMU listens at the socket `monitor`.
    Cold { disk: &'a Path, monitor: &'a Path },
    /// As it was saved.
    Saved(&'a Saved),
}

/// All that a machine is made of, but for its payload, as text.
pub(super) fn recipe(cache: &Cache, kernel: Kernel) -> Result<String> {
    let tree = kernel.tree(cache)?;
    let files = [system::disk(cache)?, early::archive(cache, &tree)?, tree.image, key(cache)?];
    Ok(format!("{files:?}\n{MACHINE:?}\n{COMMAND_LINE}"))
}

/// The private key that opens machines of this cache.
fn key(cache: &Cache) -> Result<PathBuf> {
    let directory = cache.get("disks", "key", "ed25519", |target| {
        fs::create_dir(target)?;
        let file = path_of(&target.join("key"))?;
        Cmd::new(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tests", "-f", &file]).ok().map(drop)
    })?;
    Ok(directory.join("key"))
}

/// A running machine.
#[derive(Debug)]
pub struct Node {
    site: Arc<Site>,
    name: String,
    port: u16,
    /// Nothing where others have booted it.
    machine: Mutex<Option<Background>>,
    /// Holds the connection that all commands share.
    door: Mutex<Option<Background>>,
}

impl Site {
    /// Takes the machines of this cache for ourselves; `payload` is a directory that each node finds at `/payload`, with `store` as
    /// its `containerd`.
    ///
    /// # Errors
    /// When what machines need cannot be installed or made.
    pub fn open(cache: &Cache, payload: &Path, store: &Path) -> Result<Arc<Self>> {
        machine::prepare()?;
        let alone = machine::alone(cache)?;
        let site = Self::with(cache, Some(alone))?;
        let (payload, store) = (path_of(payload)?, path_of(store)?);
        let disk = path_of(&site.payload())?;
        let shell = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", PAYLOAD, "sh"];
        let arguments = [disk.as_str(), &payload, &store];
        Cmd::new(shell.into_iter().chain(arguments)).timeout(Duration::from_secs(300)).ok()?;
        Ok(Arc::new(site))
    }

    /// For one machine, of a caller who has a site already.
    pub(super) fn alone(cache: &Cache) -> Result<Self> {
        Self::with(cache, None)
    }

    fn with(cache: &Cache, alone: Option<Flock<fs::File>>) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().to_owned();
        let site = Self { cache: cache.clone(), directory: path, ours: Some((directory, alone)) };
        let key = key(cache)?;
        for end in ["", "pub"] {
            fs::copy(key.with_extension(end), site.key().with_extension(end))?;
        }
        Ok(site)
    }

    /// The machines that somebody else has booted, whose [`Site::directory`] this is.
    #[must_use]
    pub fn of_others(cache: &Cache, directory: &Path) -> Arc<Self> {
        Arc::new(Self { cache: cache.clone(), directory: directory.to_owned(), ours: None })
    }

    /// Where the keys and sockets of its nodes lie.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The private key that opens each node.
    pub fn key(&self) -> PathBuf {
        self.directory.join("key")
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    pub(super) fn payload(&self) -> PathBuf {
        self.directory.join("payload")
    }

    fn console(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.console"))
    }

    /// Where the card of the node `number` is plugged in.
    fn socket(&self, number: u8) -> Result<String> {
        path_of(&self.directory.join(format!("card{number}")))
    }
}

impl Node {
    /// Gives `node1` or `node2` (its `number`) on `kernel`, which takes commands and has its payload.
    ///
    /// # Errors
    /// When it does not come up; tells what it said last.
    pub fn boot(site: &Arc<Site>, number: u8, kernel: Kernel) -> Result<Self> {
        let go_on = |saved: &Saved| Self::start(site, number, kernel, &Start::Saved(saved));
        let saved = Saved::of(site, number, kernel)?;
        let node = go_on(&saved).or_else(|error| {
            eprintln!("node{number} does not go on from where it was saved, and is booted anew: {error:#}");
            saved.forget()?;
            go_on(&Saved::of(site, number, kernel)?)
        })?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        node.sh(&format!("date -s @{now} >/dev/null\n{MOUNT}"))?;
        Ok(node)
    }

    /// Starts it, and returns when it takes commands.
    pub(super) fn start(site: &Arc<Site>, number: u8, kernel: Kernel, start: &Start<'_>) -> Result<Self> {
        let name = format!("node{number}");
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let argv = arguments(site, (&name, number), port, kernel, start)?;
        let machine = Mutex::new(Some(Cmd::new(argv).spawn()?));
        fs::write(site.directory.join(format!("{name}.port")), port.to_string())?;
        let node = Self { site: Arc::clone(site), name, port, machine, door: Mutex::default() };
        node.wait_until_up()?;
        Ok(node)
    }

    /// Whether its QEMU runs.
    pub(super) fn is_powered(&self) -> bool {
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        machine.as_mut().is_some_and(Background::is_running)
    }

    /// One that others have booted, by its number.
    ///
    /// # Errors
    /// When there is none.
    pub fn attach(site: &Arc<Site>, number: u8) -> Result<Self> {
        let name = format!("node{number}");
        let path = site.directory.join(format!("{name}.port"));
        let port = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let (port, site) = (port.trim().parse()?, Arc::clone(site));
        let node = Self { site, name, port, machine: Mutex::default(), door: Mutex::default() };
        node.sh("true")?;
        Ok(node)
    }

    /// `node1` or `node2`, which is also its host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The command that opens a shell in it.
    pub fn login(&self) -> String {
        format!(
            "ssh -q -i {} -p {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@127.0.0.1",
            self.site.key().display(),
            self.port
        )
    }

    /// Runs a script in it, as root; answers its standard output.
    ///
    /// # Errors
    /// When it fails; tells both outputs.
    pub fn sh(&self, script: &str) -> Result<String> {
        self.command(script).ok().with_context(|| format!("on {}", self.name))
    }

    /// Runs a script in it, as root, whatever its exit code.
    ///
    /// # Errors
    /// When it cannot be run, or does not end in time.
    pub fn output(&self, script: &str) -> Result<Output> {
        self.command(script).output()
    }

    /// A script to be run in it, as root.
    pub fn command(&self, script: &str) -> Cmd {
        self.ssh(&[&format!("set -e\n{script}")]).timeout(COMMAND_LIMIT)
    }

    /// Takes the power away for a moment: what was not written to the disk is lost.
    ///
    /// # Errors
    /// When it does not come up again.
    pub fn reset(&self) -> Result<()> {
        let before = self.sh("cat /proc/sys/kernel/random/boot_id")?;
        // Nobody answers any more.
        let _ = self.command("echo b >/proc/sysrq-trigger").timeout(Duration::from_secs(5)).output();
        self.close();
        // Whoever held it: nobody is behind it any more.
        let _ = fs::remove_file(self.control());
        self.wait_until_up()?;
        if self.sh("cat /proc/sys/kernel/random/boot_id")? == before {
            bail!("{} did not reboot", self.name);
        }
        Ok(())
    }

    /// What it has said last on its console, and QEMU of it.
    pub fn console(&self) -> String {
        let said = fs::read(self.site.console(&self.name)).unwrap_or_default();
        let machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        let complaint = machine.as_ref().map(Background::stderr).unwrap_or_default();
        last_lines(&String::from_utf8_lossy(&[said, complaint].concat()).replace('\r', ""))
    }

    fn wait_until_up(&self) -> Result<()> {
        let answers = || !self.is_powered() || self.ssh(&["true"]).timeout(KNOCK_LIMIT).ok().is_ok();
        wait_until(BOOT_LIMIT, answers)
            .and_then(|()| self.ssh(&["true"]).ok().map(drop))
            .with_context(|| format!("{} does not come up; it said:\n{}", self.name, self.console()))?;
        let door = self.ssh_with(&["-M", "-N"], &[]).spawn()?;
        *self.door.lock().unwrap_or_else(PoisonError::into_inner) = Some(door);
        let opened = || self.control().exists();
        wait_until(BOOT_LIMIT, opened).with_context(|| format!("cannot stay in {}", self.name))
    }

    fn close(&self) {
        // Its guard ends the connection. Where others hold it, it is theirs.
        let door = self.door.lock().unwrap_or_else(PoisonError::into_inner).take();
        if door.is_some() || self.site.ours.is_some() {
            drop(door);
            // There is none where the connection has ended by itself.
            let _ = fs::remove_file(self.control());
        }
    }

    fn control(&self) -> PathBuf {
        self.site.directory.join(format!("{}.door", self.name))
    }

    fn ssh(&self, words: &[&str]) -> Cmd {
        self.ssh_with(&[], words)
    }

    fn ssh_with(&self, options: &[&str], words: &[&str]) -> Cmd {
        let control = format!("ControlPath={}", self.control().display());
        let (key, port) = (self.site.key().to_string_lossy().into_owned(), self.port.to_string());
        let fixed = ["ssh", "-q", "-i", &key, "-p", &port, "-o", &control];
        // A machine of ours on our own loopback: nobody else is there.
        let known = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes"];
        let known = known.iter().flat_map(|option| ["-o", option]);
        let argv = fixed.into_iter().chain(known).chain(options.iter().copied());
        Cmd::new(argv.chain(["root@127.0.0.1"]).chain(words.iter().copied()))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.close();
    }
}

fn arguments(
    site: &Site,
    (name, number): (&str, u8),
    port: u16,
    kernel: Kernel,
    start: &Start<'_>,
) -> Result<Vec<String>> {
    let tree = kernel.tree(&site.cache)?;
    let [early, image] = [&early::archive(&site.cache, &tree)?, &tree.image].map(|path| path_of(path));
    let key = fs::read_to_string(site.key().with_extension("pub"))?;
    let line = format!(
        "{COMMAND_LINE} systemd.hostname={name} systemd.set_credential=\"ssh.authorized_keys.root:{}\"",
        key.trim()
    );
    let begin = ["nice", "-n", "5", "qemu-system-x86_64", "-name", name];
    let mut argv: Vec<String> = begin.iter().chain(MACHINE).map(|&word| word.to_owned()).collect();
    argv.extend(["-serial".to_owned(), format!("file:{}", path_of(&site.console(name))?)]);
    argv.extend(["-kernel".to_owned(), image?, "-initrd".to_owned(), early?, "-append".to_owned(), line]);
    argv.extend(drives(site, start)?);
    argv.extend(card(
        &format!("user,id=outside,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"),
        "outside",
        &format!("52:54:00:09:01:{number:02x}"),
    ));
    let (own, other) = (site.socket(number)?, site.socket(3 - number)?);
    argv.extend(card(
        &format!("dgram,id=inside,local.type=unix,local.path={own},remote.type=unix,remote.path={other}"),
        "inside",
        &format!("52:54:00:09:00:{number:02x}"),
    ));
    Ok(argv)
}

/// The system's and the payload, and where the machine goes on from. What is written to a copy goes to a file without a name,
/// which goes with the machine.
fn drives(site: &Site, start: &Start<'_>) -> Result<Vec<String>> {
    let drive = |file: &Path, format: &str, copy: bool| -> Result<[String; 2]> {
        let copy = if copy { "on" } else { "off" };
        let drive = format!("file={},format={format},if=virtio,snapshot={copy},cache=unsafe", path_of(file)?);
        Ok(["-drive".to_owned(), drive])
    };
    let payload = drive(&site.payload(), "raw", true)?;
    Ok(match start {
        Start::Cold { disk, monitor } => {
            let monitor = format!("unix:{},server=on,wait=off", path_of(monitor)?);
            [drive(disk, "qcow2", false)?, payload, ["-qmp".to_owned(), monitor]].concat()
        }
        Start::Saved(saved) => {
            let state = format!("exec:cat '{}'", path_of(&saved.state())?);
            [drive(&saved.disk(), "qcow2", true)?, payload, ["-incoming".to_owned(), state]].concat()
        }
    })
}

fn card(network: &str, id: &str, address: &str) -> [String; 4] {
    let device = format!("virtio-net-pci,netdev={id},mac={address},romfile=");
    ["-netdev".to_owned(), network.to_owned(), "-device".to_owned(), device]
}

fn path_of(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).context("a path that is not UTF-8")
}
