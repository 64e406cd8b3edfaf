//! CRIU alone, for a process without a container: pages to a page server, or after the process.

use std::sync::Arc;

use anyhow::{ensure, Context, Result};
use fastmig_tests::apps::memory::Program;
use fastmig_tests::framework::image::programs::PROGRAM;
use fastmig_tests::framework::Host;

use super::runc::{self, LIMIT, SOON};
use super::tool::{Hosts, Started, Tool};

/// Starts the program with a number that is free at the destination. Arguments: the program and its own.
const START: &str = r#"
echo 30000 >/proc/sys/kernel/ns_last_pid
setsid "$@" </dev/null >/dev/null 2>&1 &
echo $! >/bench/plain.pid
echo 1000 >/proc/sys/kernel/ns_last_pid
"#;

/// Options of every dump and restore.
const OPTIONS: &str = "--manage-cgroups=ignore -v1 -D /bench/images/plain";

/// Ends it on a host, and clears away. A restored one has the same number.
const REMOVE: &str = r#"
test -e /bench/plain.pid && kill -s KILL -- -$(cat /bench/plain.pid) 2>/dev/null
rm -rf /bench/plain.pid /bench/images/*
"#;

/// The second host, for both ways. Arguments: the port of the files, the address and port of the pages, OPTIONS.
const PAGE_SERVER: &str = r#"
cd /bench/images; mkdir plain
criu page-server -D plain --port $3 --daemon --pidfile server.pid -o server.log || { cat plain/server.log >&2; exit 1; }
echo ready
socat -u "TCP-LISTEN:$1,reuseaddr" EXEC:'tar -x -f -'
criu restore $4 -d -o restore.log || { tail -n 20 plain/restore.log >&2; exit 1; }
"#;

const TO_PAGE_SERVER: &str = r#"
cd /bench/images; mkdir plain
criu dump $4 -t $(cat /bench/plain.pid) -o dump.log --page-server --address $2 --port $3 ||
  { tail -n 20 plain/dump.log >&2; exit 1; }
tar -c -f - plain | socat -u - "TCP:$2:$1,retry=200,interval=0.02"
"#;

const LAZY: &str = r#"
cd /bench/images; echo ready
socat -u "TCP-LISTEN:$1,reuseaddr" EXEC:'tar -x -f -'
criu lazy-pages --page-server --address $2 --port $3 -D plain -o lazy.log & lazy=$!
for i in $(seq 500); do test -S plain/lazy-pages.socket && break; sleep 0.002; done
criu restore $4 --lazy-pages -d -o restore.log || { tail -n 20 plain/restore.log plain/lazy.log >&2; exit 1; }
wait $lazy || { tail -n 20 plain/lazy.log >&2; exit 1; }
"#;

/// The dump stays to serve pages, and says on a pipe when the rest is on the disk.
const LAZILY: &str = r#"
cd /bench/images; mkdir plain; mkfifo ready
criu dump $4 -t $(cat /bench/plain.pid) -o dump.log --lazy-pages --address 0.0.0.0 --port $3 --status-fd 5 5>ready & dump=$!
head -c 1 <ready >/dev/null
tar -c -f - plain | socat -u - "TCP:$2:$1,retry=200,interval=0.02"
wait $dump || { tail -n 20 plain/dump.log >&2; exit 1; }
"#;

const FILES_PORT: &str = "7004";
const PAGES_PORT: &str = "7005";

/// Pages go to a page server, which waits.
#[derive(Debug)]
pub(super) struct PageServer;

/// Pages follow.
#[derive(Debug)]
pub(super) struct LazyPages;

/// Images go through a program that streams them.
#[derive(Debug)]
pub(super) struct ImageStreamer;

struct Moving {
    hosts: Hosts,
    receive: &'static str,
    send: &'static str,
    /// Whose address the pages are fetched from, or sent to.
    pages_at: usize,
}

fn started(hosts: &Hosts, words: &[&str], lazily: bool) -> Result<Box<dyn Started>> {
    let (receive, send, pages_at) = if lazily { (LAZY, LAZILY, 0) } else { (PAGE_SERVER, TO_PAGE_SERVER, 1) };
    let moving = Moving { hosts: hosts.clone(), receive, send, pages_at };
    let program = format!("/bench/bundle/rootfs{PROGRAM}");
    hosts[0].cmd([&["sh", "-ec", START, "sh", &program], words].concat()).ok()?;
    hosts[1].sh("echo 0 >/bench/plain.pid").ok()?;
    Program::on(&hosts[0])?.wait_until_up()?;
    // The number is the same there.
    let pid = hosts[0].read_file("/bench/plain.pid")?;
    hosts[1].write_file("/bench/plain.pid", pid)?;
    Ok(Box::new(moving))
}

fn prepare(hosts: &Hosts) -> Result<()> {
    hosts.iter().try_for_each(|host| runc::prepare(host))
}

impl Tool for PageServer {
    fn name(&self) -> &'static str {
        "criu-page-server"
    }

    fn prepare(&self, hosts: &Hosts) -> Result<()> {
        prepare(hosts)
    }

    fn rounds(&self) -> [usize; 2] {
        [2, 3]
    }

    fn start(&self, hosts: &Hosts, words: &[&str]) -> Result<Box<dyn Started>> {
        started(hosts, words, false)
    }

    fn programs(&self) -> &'static [&'static str] {
        &["criu", "tar", "socat"]
    }
}

impl Tool for LazyPages {
    fn name(&self) -> &'static str {
        "criu-lazy-pages"
    }

    fn missing(&self, hosts: &Hosts) -> Option<String> {
        // It wants pipes of 16 MiB, which takes CAP_SYS_RESOURCE or this setting.
        let probe =
            "criu check --feature uffd-noncoop && test $(cat /proc/sys/fs/pipe-max-size) -ge 16777216";
        let told = hosts[0].sh(probe).output().ok()?;
        let reason = "`criu check --feature uffd-noncoop` fails, or fs.pipe-max-size is below 16777216";
        (!told.status.success()).then(|| reason.to_owned())
    }

    fn prepare(&self, hosts: &Hosts) -> Result<()> {
        prepare(hosts)
    }

    fn rounds(&self) -> [usize; 2] {
        [2, 3]
    }

    fn start(&self, hosts: &Hosts, words: &[&str]) -> Result<Box<dyn Started>> {
        started(hosts, words, true)
    }

    fn programs(&self) -> &'static [&'static str] {
        &["criu", "tar", "socat"]
    }
}

impl Tool for ImageStreamer {
    fn name(&self) -> &'static str {
        "criu-image-streamer"
    }

    fn missing(&self, hosts: &Hosts) -> Option<String> {
        let there =
            hosts[0].sh("command -v criu-image-streamer").output().is_ok_and(|told| told.status.success());
        let reason = if there { "no move by it has been written yet" } else { "no package of Debian has it" };
        Some(reason.to_owned())
    }

    fn start(&self, _: &Hosts, _: &[&str]) -> Result<Box<dyn Started>> {
        anyhow::bail!("there is no image streamer")
    }

    fn programs(&self) -> &'static [&'static str] {
        &[]
    }
}

impl Started for Moving {
    fn go(&mut self) -> Result<Vec<(&'static str, f64)>> {
        let [a, b] = &self.hosts;
        let address = |host: &Arc<Host>| host.address();
        let receive = [
            "bash",
            "-ec",
            self.receive,
            "bash",
            FILES_PORT,
            &address(&self.hosts[self.pages_at]),
            PAGES_PORT,
            OPTIONS,
        ];
        let mut receiver = b.cmd(receive).spawn()?;
        receiver.wait_for_output("ready", SOON)?;
        let send = [
            "bash",
            "-o",
            "pipefail",
            "-ec",
            self.send,
            "bash",
            FILES_PORT,
            &address(b),
            PAGES_PORT,
            OPTIONS,
        ];
        a.cmd(send).timeout(LIMIT).ok().context("the dump failed")?;
        let restored = receiver.wait(LIMIT)?;
        ensure!(restored.status.success(), "cannot restore: {}", restored.err());
        Ok(Vec::new())
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        for host in &self.hosts {
            // The script's last word is that of `rm`.
            runc::remove(host, REMOVE);
        }
    }
}
