//! A JVM: an HTTP server that counts its requests, with threads of its own and 64 MiB of heap.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};

use super::http::{get_json, CountingClient};
use super::load::{Client, Traffic};
use super::peer::Peer;
use super::{facts, App, Facts, START_LIMIT};
use crate::framework::cache::Cache;
use crate::framework::image::compile_in_tree;
use crate::framework::Session;

/// What hosts have of ours that runs on it.
const SOURCES: &[(&str, &str)] = &[
    ("Count.java", include_str!("../../fixtures/apps/Count.java")),
    ("Heap.java", include_str!("../../fixtures/apps/Heap.java")),
];

/// The image has a JVM without a compiler.
const COMPILER: &[&str] = &["default-jdk-headless"];
const COMPILE: &str = "javac -d /out /out/*.java";

/// It sends head and body apart: without this each answer waits for an acknowledgement.
pub(super) const NO_DELAY: &str = "-Dsun.net.httpserver.nodelay=true";

/// Its classes, as hosts see them and as containers do.
const CLASSES: &str = "/shared/apps/java";
pub(super) const IN_CONTAINER: &str = "/app";

/// `Count.java` on an unmodified JVM.
#[derive(Debug, Default)]
pub(super) struct Java {
    client: CountingClient,
    before: Value,
}

impl App for Java {
    fn name(&self) -> &'static str {
        "java"
    }

    fn port(&self) -> u16 {
        8082
    }

    fn options(&self) -> Vec<String> {
        mount()
    }

    fn command(&self) -> Vec<String> {
        let port = self.port().to_string();
        ["java", "-Xmx256m", NO_DELAY, "-cp", IN_CONTAINER, "Count", &port].map(String::from).to_vec()
    }

    fn prepare(&self, session: &Session) -> Result<()> {
        provide(session)
    }

    fn fill(&mut self, peer: &Peer) -> Result<Facts> {
        peer.wait_until_up(START_LIMIT)?;
        self.before = get_json(peer, "/state")?;
        ensure!(self.before["threads"] == json!(4), "not its threads: {}", self.before);
        Ok(Facts::new())
    }

    fn clients(&self) -> Vec<Box<dyn Client>> {
        vec![Box::new(self.client.clone())]
    }

    fn verify(&mut self, peer: &Peer, traffic: &Traffic) -> Result<Facts> {
        let state = get_json(peer, "/state")?;
        for unchanged in ["heap", "threads", "started"] {
            ensure!(state[unchanged] == self.before[unchanged], "{} became {state}", self.before);
        }
        self.client.require(&state["count"])?;
        super::require_progress(|| get_json(peer, "/state"), "ticks")?;
        Ok(facts([
            ("count_before", json!(traffic.before())),
            ("count_after", state["count"].clone()),
            ("threads", state["threads"].clone()),
        ]))
    }
}

/// Puts the classes where every host of the run sees them.
pub(super) fn provide(session: &Session) -> Result<()> {
    let target = session.shared_dir().join("apps/java");
    fs::create_dir_all(&target)?;
    for (name, source) in SOURCES {
        for class in fs::read_dir(classes(session.cache(), name, source)?)? {
            let class = class?;
            fs::copy(class.path(), target.join(class.file_name()))?;
        }
    }
    Ok(())
}

/// Arguments of `ctr run` that show them to a container.
pub(super) fn mount() -> Vec<String> {
    vec!["--mount".into(), format!("type=bind,src={CLASSES},dst={IN_CONTAINER},options=rbind:ro")]
}

/// The compiled classes of one source, made when the cache has none.
fn classes(cache: &Cache, name: &str, source: &str) -> Result<PathBuf> {
    let recipe = format!("{COMPILER:?}\n{COMPILE}\n{source}");
    let compile = |target: &Path| {
        compile_in_tree(cache, COMPILER, COMPILE, (name, source), target)
            .with_context(|| format!("cannot compile {name}"))
    };
    cache.get("fixtures", &format!("classes-of-{name}"), &recipe, compile)
}
