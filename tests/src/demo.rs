//! The main job, to be seen: real applications move from one host to another while their clients go on asking.
//!
//! Two hosts come up, one of each Debian generation, with a daemon each. Each application runs on host a and is moved by `fastmig
//! migrate`, under load, into a container that waits on host b. What its clients had acknowledged must be there. One line
//! of JSON tells the outcome of each, the main application's last.

use std::sync::Arc;

use anyhow::{bail, Error, Result};
use serde_json::{json, Map, Value};

use crate::apps::moving::{journey, migrate, Journey};
use crate::apps::{self, App};
use crate::framework::daemon::cluster;
use crate::framework::{dist, Generation, Host, Session};

/// Shows the application `only`, or all of them; whether all went well.
pub fn run(only: Option<&str>) -> Result<bool> {
    let mut apps = apps::all();
    if let Some(name) = only {
        let known: Vec<&str> = apps.iter().map(|app| app.name()).collect();
        if !known.contains(&name) {
            bail!("there is no application {name}; there are: {}", known.join(", "));
        }
        apps.retain(|app| app.name() == name);
    }
    let main = apps.last().map_or("", |app| app.name());
    let outcome = Stage::up().map(|stage| {
        let shown = apps.iter_mut().map(|app| stage.show(app.as_mut())).filter(|shown| *shown).count();
        shown == apps.len()
    });
    if let Err(error) = &outcome {
        tell(&failure(main, error));
    }
    Ok(outcome.unwrap_or(false))
}

/// The two hosts. They go down with their session, which is dropped last.
struct Stage {
    a: Arc<Host>,
    b: Arc<Host>,
    session: Session,
}

impl Stage {
    fn up() -> Result<Self> {
        println!("two hosts: a runs Debian trixie, b the coming forky, each with containerd, FastMig and its daemon");
        let dist = dist::build()?;
        let session = Session::start()?;
        let up = |name, generation| -> Result<Arc<Host>> {
            let host = session.host(name, generation)?;
            host.install(&dist)?;
            host.start_containerd()?;
            Ok(host)
        };
        let stage = Self { a: up("a", Generation::Trixie)?, b: up("b", Generation::Forky)?, session };
        cluster(&[&stage.a, &stage.b])?;
        Ok(stage)
    }

    fn show(&self, app: &mut dyn App) -> bool {
        let name = app.name();
        println!("{name}: runs on host a under io.containerd.fastmig.v1, a container waits on host b");
        match self.journey(app) {
            Ok(journey) => {
                describe(name, &journey);
                tell(&success(name, &journey));
                true
            }
            Err(error) => {
                tell(&failure(name, &error));
                false
            }
        }
    }

    fn journey(&self, app: &mut dyn App) -> Result<Journey> {
        app.prepare(&self.session)?;
        for host in [&self.a, &self.b] {
            host.import_images(&[app.name()])?;
        }
        let journey = journey(app, &self.a, &self.b, &[], migrate)?;
        for host in [&self.a, &self.b] {
            host.forget_image(app.name())?;
            let left = host.leftovers()?;
            if !left.is_empty() {
                bail!("left behind on host {}: {}", host.name(), left.join(", "));
            }
        }
        Ok(journey)
    }
}

fn describe(name: &str, journey: &Journey) {
    let report = &journey.moved;
    println!(
        "{name}: moved in {} ms, of which it stood still for {} ms; {} bytes of memory and {} bytes on the wire; \
         {} requests answered on a, {} on b",
        report["total_ms"],
        report["frozen_ms"],
        report["bytes"]["raw"],
        report["bytes"]["wire"],
        journey.traffic.before(),
        journey.traffic.after()
    );
}

fn success(name: &str, journey: &Journey) -> Value {
    let mut line = Map::from_iter([("ok".to_owned(), json!(true)), ("app".to_owned(), json!(name))]);
    line.extend(journey.before.clone());
    line.extend(journey.after.clone());
    line.insert(
        "gap_ms".to_owned(),
        json!(u64::try_from(journey.traffic.gap.as_millis()).unwrap_or(u64::MAX)),
    );
    for name in ["frozen_ms", "total_ms", "bytes"] {
        line.insert(name.to_owned(), journey.moved[name].clone());
    }
    line.insert("source_container".to_owned(), json!(journey.source));
    // A journey with another PID 1 in the end is an error.
    line.insert("destination_pid1_kept".to_owned(), json!(true));
    Value::Object(line)
}

fn failure(name: &str, error: &Error) -> Value {
    json!({ "ok": false, "app": name, "reason": format!("{error:#}") })
}

fn tell(line: &Value) {
    println!("{line}");
}
