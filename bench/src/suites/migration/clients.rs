//! By the clients of the field, each with its own checkpoints over stock runc: what it writes travels by TCP into a receiver that
//! waits, and is restored there by the same client. Containers are in the network of their hosts, and data is on tmpfs.

use anyhow::{ensure, Context, Result};
use fastmig_tests::apps::memory::{image, Program};
use fastmig_tests::framework::image::programs::PROGRAM;
use fastmig_tests::framework::image::reference;

use super::runc::{self, LIMIT, SOON};
use super::tool::{Hosts, Started, Tool};
use super::work::Work;

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    name: &'static str,
    /// Its command on the first host, before further options, the image and the command.
    run: &'static [&'static str],
    /// The same on the second, before the move; nothing when it needs none.
    expect: &'static [&'static str],
    /// Arguments: the port.
    receive: &'static str,
    /// Arguments: the address, the port.
    send: &'static str,
    remove: &'static str,
    /// MiB that it moves in a reasonable time: in a quick run, in a thorough one.
    at_most: [usize; 2],
    programs: &'static [&'static str],
}

pub(super) const PODMAN: Client = Client {
    name: "podman",
    run: &["podman", "run", "-d", "--network", "host", "--name", "bench-move"],
    expect: &[],
    receive: r#"
echo ready
socat -u "TCP-LISTEN:$1,reuseaddr" OPEN:/bench/images/moved.tar,creat,trunc
podman container restore --import /bench/images/moved.tar
"#,
    send: r#"
podman container checkpoint --compress none --export /bench/images/moved.tar bench-move
socat -u OPEN:/bench/images/moved.tar "TCP:$1:$2,retry=200,interval=0.02"
"#,
    remove: "podman rm -f -t 0 bench-move >/dev/null 2>&1; rm -rf /bench/images/*",
    at_most: [128, usize::MAX],
    programs: &["podman", "conmon", "runc", "criu", "socat"],
};

pub(super) const DOCKER: Client = Client {
    name: "docker",
    run: &["docker", "run", "-d", "--network", "host", "--name", "bench-move"],
    expect: &["docker", "create", "--network", "host", "--name", "bench-move"],
    // A checkpoint is restored from the container's own directory. containerd may still have what an earlier one brought.
    receive: r#"
dir=/var/lib/docker/containers/$(docker inspect -f '{{.Id}}' bench-move)/checkpoints; mkdir -p $dir; cd $dir; echo ready
socat -u "TCP-LISTEN:$1,reuseaddr" EXEC:'tar -x -f -'
for i in 1 2 3 4 5; do
  docker start --checkpoint moved bench-move 2>/tmp/bench-error && exit
  sleep 0.2
done
cat /tmp/bench-error >&2; exit 1
"#,
    send: r#"
docker checkpoint create bench-move moved >/dev/null
cd /var/lib/docker/containers/$(docker inspect -f '{{.Id}}' bench-move)/checkpoints
tar -c --sparse -f - moved | socat -u - "TCP:$1:$2,retry=200,interval=0.02"
"#,
    remove: "docker rm -f bench-move >/dev/null 2>&1; true",
    at_most: [128, usize::MAX],
    programs: &["docker", "containerd", "runc", "criu", "tar", "socat"],
};

/// It restores from an image alone, which a checkpoint is put into.
pub(super) const CTR: Client = Client {
    name: "ctr",
    run: &["ctr", "run", "-d", "--null-io", "--net-host"],
    expect: &[],
    receive: r#"
echo ready
socat -u "TCP-LISTEN:$1,reuseaddr" OPEN:/bench/images/moved.tar,creat,trunc
ctr images import --local --no-unpack /bench/images/moved.tar >/dev/null
ctr containers restore --live bench-move example.org/bench-moved:1
"#,
    send: r#"
ctr containers checkpoint --task bench-move example.org/bench-moved:1
ctr tasks kill -s SIGKILL bench-move
ctr images export --local --skip-manifest-json /bench/images/moved.tar example.org/bench-moved:1
socat -u OPEN:/bench/images/moved.tar "TCP:$1:$2,retry=200,interval=0.02"
"#,
    remove: r#"
ctr tasks rm -f bench-move >/dev/null 2>&1; ctr containers rm bench-move >/dev/null 2>&1
ctr images rm --sync example.org/bench-moved:1 >/dev/null 2>&1; rm -rf /bench/images/*
"#,
    at_most: [128, usize::MAX],
    programs: &["ctr", "containerd", "runc", "criu", "socat"],
};

const PORT: &str = "7006";

struct Moving {
    hosts: Hosts,
    client: Client,
}

impl Client {
    /// Runs a command in a container of the first host, and has the second ready for it.
    pub(super) fn run(
        &self,
        hosts: &Hosts,
        options: &[String],
        image: &str,
        command: &[String],
    ) -> Result<Box<dyn Started>> {
        let moving = Moving { hosts: hosts.clone(), client: Self { ..*self } };
        for (host, words) in hosts.iter().zip([self.run, self.expect]).filter(|(_, words)| !words.is_empty())
        {
            let mut line: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            line.extend(options.iter().cloned());
            line.push(image.to_owned());
            // ctr has no option for the name.
            line.extend((self.name == "ctr").then(|| "bench-move".to_owned()));
            line.extend(command.iter().cloned());
            host.cmd(line).ok()?;
        }
        Ok(Box::new(moving))
    }
}

impl Tool for Client {
    fn name(&self) -> &'static str {
        self.name
    }

    fn prepare(&self, hosts: &Hosts) -> Result<()> {
        hosts.iter().try_for_each(|host| runc::prepare(host))
    }

    fn takes(&self, work: &Work, quick: bool) -> bool {
        work.is_idle() && work.all_mib() <= self.at_most[usize::from(!quick)] && (!quick || work.is_plain())
    }

    fn rounds(&self) -> [usize; 2] {
        [2, 3]
    }

    fn start(&self, hosts: &Hosts, words: &[&str]) -> Result<Box<dyn Started>> {
        let command: Vec<String> =
            std::iter::once(PROGRAM).chain(words.iter().copied()).map(str::to_owned).collect();
        let moving = self.run(hosts, &[], &reference(image()), &command)?;
        Program::on(&hosts[0])?.wait_until_up()?;
        Ok(moving)
    }

    fn programs(&self) -> &'static [&'static str] {
        self.programs
    }
}

impl Started for Moving {
    fn go(&mut self) -> Result<Vec<(&'static str, f64)>> {
        let [a, b] = &self.hosts;
        let mut receiver =
            b.cmd(["bash", "-o", "pipefail", "-ec", self.client.receive, "bash", PORT]).spawn()?;
        receiver.wait_for_output("ready", SOON)?;
        let send = ["bash", "-o", "pipefail", "-ec", self.client.send, "bash", &b.address(), PORT];
        a.cmd(send).timeout(LIMIT).ok().context("the checkpoint failed")?;
        let restored = receiver.wait(LIMIT)?;
        ensure!(restored.status.success(), "cannot restore: {}", restored.err());
        Ok(Vec::new())
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        for host in &self.hosts {
            runc::remove(host, self.client.remove);
        }
    }
}
