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

const SOURCE: &str = include_str!("../../fixtures/apps/Count.java");

/// The image has a JVM without a compiler.
const COMPILER: &[&str] = &["default-jdk-headless"];
const COMPILE: &str = "javac -d /out /out/Count.java";

/// It sends head and body apart: without this each answer waits for an acknowledgement.
const NO_DELAY: &str = "-Dsun.net.httpserver.nodelay=true";

/// Its classes, as hosts see them.
const CLASSES: &str = "/shared/apps/java";

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
        vec!["--mount".into(), format!("type=bind,src={CLASSES},dst=/app,options=rbind:ro")]
    }

    fn command(&self) -> Vec<String> {
        let port = self.port().to_string();
        ["java", "-Xmx256m", NO_DELAY, "-cp", "/app", "Count", &port].map(String::from).to_vec()
    }

    fn prepare(&self, session: &Session) -> Result<()> {
        let target = session.shared_dir().join("apps/java");
        fs::create_dir_all(&target)?;
        for class in fs::read_dir(classes(session.cache())?)? {
            let class = class?;
            fs::copy(class.path(), target.join(class.file_name()))?;
        }
        Ok(())
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

/// The compiled classes, made when the cache has none.
fn classes(cache: &Cache) -> Result<PathBuf> {
    let recipe = format!("{COMPILER:?}\n{COMPILE}\n{SOURCE}");
    cache.get("fixtures", "java-classes", &recipe, |target| compile(cache, target))
}

fn compile(cache: &Cache, target: &Path) -> Result<()> {
    compile_in_tree(cache, COMPILER, COMPILE, ("Count.java", SOURCE), target)
        .context("cannot compile Count.java")
}
