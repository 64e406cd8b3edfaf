//! By `fastmig migrate`, into a container that waits.

use std::thread::sleep;

use anyhow::Result;
use fastmig_tests::apps::memory::Pair;
use fastmig_tests::apps::migrating;
use fastmig_tests::apps::watch::Watch;

use super::{Gap, Options, Stage, LIFE};

/// Moves the program once; how long it stood still.
pub(super) fn measure(stage: &Stage, words: &[&str], options: &Options) -> Result<Gap> {
    let mut pair = Pair::start(&stage.a, &stage.b, words)?;
    sleep(LIFE);
    let life = pair.program().life()?;
    pair.program().reset()?;
    let watch = if options.client { Some(Watch::start([&stage.a, &stage.b])?) } else { None };
    let [source, destination] = pair.containers();
    let further = options.migrate.iter().map(String::as_str);
    let told = migrating::migrate(source, destination, &further.collect::<Vec<_>>())?;
    for p in told["phases"].as_array().into_iter().flatten().filter(|p| p["frozen"] == true) {
        print!("{} {} {}; ", p["phase"], p["side"], p["ms"]);
    }
    println!();
    if let Ok(l) = stage.b.cmd(["grep", "TIMING", "/var/log/fastmigd.log"]).ok() {
        println!("{l}");
    }
    pair.has_moved();
    let client = watch.map(Watch::stop).transpose()?;
    let (own, _) = pair.require_alive(&life)?;
    pair.remove()?;
    Ok(Gap { own, client })
}
