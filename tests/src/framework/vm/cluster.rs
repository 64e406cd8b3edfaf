//! One node or two with FastMig, which its Debian package has installed, whose daemons know each other.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::{store, Kernel, Node, Site};
use crate::framework::cache::Cache;
use crate::framework::deb;
use crate::framework::progress::step;

/// Names, in the environment, the directory of machines that somebody keeps, for a suite to run on.
pub const NODES: &str = "FASTMIG_VM_NODES";

/// For what is installed, or unpacked from an image.
const LONG: Duration = Duration::from_secs(300);

/// As an operator does it. The disk has no other packages to ask for, and nothing to ask them from.
const INSTALL: &str = "
export DEBIAN_FRONTEND=noninteractive
dpkg --install /payload/fastmig.deb
systemctl restart containerd
";

/// A script that ends well as soon as the daemon answers.
pub const WAIT_FOR_DAEMON: &str =
    "for turn in $(seq 100); do curl -sf --unix-socket /run/fastmig/api.sock http://fastmigd/healthz && exit; sleep 0.2; done; \
     journalctl -u fastmigd --no-pager | tail; exit 1";

/// `node1`, and mostly `node2`.
#[derive(Debug)]
pub struct Cluster {
    /// What they have in common.
    pub site: Arc<Site>,
    /// In the order of their names.
    pub nodes: Vec<Arc<Node>>,
}

impl Cluster {
    /// Boots both on `kernel`, installs FastMig and these images, and makes them known to each other.
    ///
    /// # Errors
    /// With what went wrong on which node.
    pub fn start(cache: &Cache, kernel: Kernel, images: &[&str]) -> Result<Self> {
        let cluster = Self::boot(cache, kernel, images, &[1, 2])?;
        cluster.join()?;
        Ok(cluster)
    }

    /// Only `node1`, which knows nobody.
    ///
    /// # Errors
    /// See [`Cluster::start`].
    pub fn start_one(cache: &Cache, kernel: Kernel, images: &[&str]) -> Result<Self> {
        Self::boot(cache, kernel, images, &[1])
    }

    fn boot(cache: &Cache, kernel: Kernel, images: &[&str], numbers: &[u8]) -> Result<Self> {
        let payload = tempfile::tempdir()?;
        fs::copy(deb::build(cache)?, payload.path().join("fastmig.deb"))?;
        let site = Site::open(cache, payload.path(), &store::of(cache, images)?)?;
        let boot = |number| {
            let site = Arc::clone(&site);
            move || -> Result<Arc<Node>> {
                let node = Node::boot(&site, number, kernel)?;
                node.command(INSTALL).timeout(LONG).ok().with_context(|| format!("on {}", node.name()))?;
                Ok(Arc::new(node))
            }
        };
        let nodes = step(&format!("{} with {kernel}", machines(numbers.len())), || {
            std::thread::scope(|scope| {
                let threads: Vec<_> = numbers.iter().map(|number| scope.spawn(boot(*number))).collect();
                let nodes = threads.into_iter().map(|thread| {
                    thread.join().map_err(|_| anyhow::anyhow!("a machine's thread has panicked"))?
                });
                nodes.collect::<Result<Vec<_>>>()
            })
        })?;
        Ok(Self { site, nodes })
    }

    /// The machines that `cargo xtask vm nodes` keeps, of which `directory` tells.
    ///
    /// # Errors
    /// When there are none.
    pub fn attach(cache: &Cache, directory: &Path) -> Result<Self> {
        let site = Site::of_others(cache, directory);
        let nodes = vec![Arc::new(Node::attach(&site, 1)?), Arc::new(Node::attach(&site, 2)?)];
        Ok(Self { site, nodes })
    }

    fn join(&self) -> Result<()> {
        let (first, second) = (&self.nodes[0], &self.nodes[1]);
        let start = format!("systemctl enable --quiet --now fastmigd\n{WAIT_FOR_DAEMON}");
        first.sh("fastmigd init --name node1 --address 10.9.0.1:7443")?;
        first.sh(&start)?;
        let token = first.sh("fastmigd token")?;
        second.sh(&format!("fastmigd join {} --name node2 --address 10.9.0.2:7443", token.trim()))?;
        second.sh(&start)?;
        let peers = first.sh("fastmigd peers")?;
        ensure!(peers.contains("node2"), "node1 knows only:\n{peers}");
        Ok(())
    }
}

fn machines(count: usize) -> &'static str {
    if count == 1 {
        "a machine"
    } else {
        "two machines"
    }
}
