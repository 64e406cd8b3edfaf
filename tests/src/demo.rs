//! The main job, to be seen: real applications move from one host to another while their clients go on asking.
//!
//! Two hosts come up, one of each Debian generation, with a daemon each. Each application runs on host a and is moved by `fastmig
//! migrate`, under load, into a container that waits on host b. What its clients had acknowledged must be there. One line
//! of JSON tells the outcome of each, the main application's last.

mod acts;
mod stage;

use anyhow::{bail, Error, Result};
use serde_json::{json, Map, Value};

use crate::apps::Facts;
use acts::{Act, ACTS};
use stage::Stage;

/// Shows the act `only`, or all of them; whether all went well.
pub fn run(only: Option<&str>) -> Result<bool> {
    let acts: Vec<&Act> = ACTS.iter().filter(|act| only.is_none_or(|name| act.name == name)).collect();
    let Some(main) = acts.last() else {
        let known: Vec<&str> = ACTS.iter().map(|act| act.name).collect();
        bail!("there is nothing called {}; there are: {}", only.unwrap_or_default(), known.join(", "));
    };
    match Stage::up() {
        Ok(stage) => Ok(acts.iter().filter(|act| !show(&stage, act)).count() == 0),
        Err(error) => {
            tell(&failure(main.name, &error));
            Ok(false)
        }
    }
}

fn show(stage: &Stage, act: &Act) -> bool {
    println!("{}: {}", act.name, act.about);
    match play(stage, act) {
        Ok(facts) => {
            describe(act.name, &facts);
            tell(&success(act.name, facts));
            true
        }
        Err(error) => {
            tell(&failure(act.name, &error));
            false
        }
    }
}

fn play(stage: &Stage, act: &Act) -> Result<Facts> {
    for host in [&stage.a, &stage.b] {
        host.import_images(&[act.image])?;
    }
    let facts = (act.play)(stage)?;
    for host in [&stage.a, &stage.b] {
        host.forget_image(act.image)?;
    }
    stage.require_nothing_left()?;
    Ok(facts)
}

fn describe(name: &str, facts: &Facts) {
    println!(
        "{name}: moved in {} ms, of which it stood still for {} ms, and its clients waited {} ms at most; {} bytes of \
         memory and files, {} on the wire",
        facts["total_ms"],
        facts["frozen_ms"],
        facts["gap_ms"],
        facts["bytes"]["raw"],
        facts["bytes"]["wire"]
    );
}

fn success(name: &str, facts: Facts) -> Value {
    let mut line = Map::from_iter([("ok".to_owned(), json!(true)), ("app".to_owned(), json!(name))]);
    line.extend(facts);
    Value::Object(line)
}

fn failure(name: &str, error: &Error) -> Value {
    json!({ "ok": false, "app": name, "reason": format!("{error:#}") })
}

fn tell(line: &Value) {
    println!("{line}");
}
