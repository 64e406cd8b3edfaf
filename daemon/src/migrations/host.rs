//! This host, as the protocol sees it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use fastmig_engine::migration::Verdict;
use fastmig_engine::{Config, Container, Key, Kind};
use fastmig_migrate::destination::{Host, Placed};
use fastmig_migrate::ends::{
    Choice, EndError, Files, ImageSource, Images, Leaving, Memory, Owing, Pass, Place, Round, Waiting,
};
use fastmig_migrate::fetch::Errand;
use fastmig_migrate::journal::Record;
use fastmig_migrate::options::{Strategy, Wanted};
use fastmig_migrate::source::Origin;
use fastmig_migrate::MigrationId;
use fastmig_recreate::{Created, Recipe, Recreator};
use serde::Deserialize;
use serde_json::Value;

use super::live::Live;
use super::located::{Agreed, Located};
use crate::pki::peers::Peers;
use crate::{ends, inventory};

/// Finds and makes containers, and settles what a dead daemon left.
#[derive(Debug)]
pub(super) struct ThisHost {
    config: Arc<Config>,
    recreator: Recreator,
    live: Arc<Live>,
    peers: Peers,
}

impl ThisHost {
    pub(super) fn new(config: Arc<Config>, recreator: Recreator, live: Arc<Live>, peers: Peers) -> Self {
        Self { config, recreator, live, peers }
    }

    /// Where another host is found: where it is known to be, or else where it says that it is.
    fn addresses(&self, peer: &str, said: Option<&str>) -> Vec<String> {
        let known = self.peers.address(peer).ok();
        let mut all: Vec<String> = known.into_iter().chain(said.map(str::to_owned)).collect();
        all.dedup();
        all
    }

    /// How to make a container once more on another host.
    pub(super) fn recipe(&self, key: &Key, binds: &BTreeMap<String, String>) -> Result<Value, EndError> {
        let binds = binds.iter().map(|(here, there)| (here.into(), there.into())).collect();
        let recipe = self.recreator.describe(key)?.with_binds(&binds);
        Ok(serde_json::from_slice(&recipe.to_bytes()?)?)
    }

    /// The container `wanted`, or the one that is made by its recipe where there is none.
    fn place(&self, wanted: &Wanted) -> Result<(Key, Option<Created>), EndError> {
        let found = inventory::find(&self.config, &wanted.container, None);
        let Some(recipe) = &wanted.create else { return Ok((found?, None)) };
        match found {
            Ok(key) => return Ok((key, None)),
            Err(e) if e.kind() == Kind::NotFound => {}
            Err(e) => return Err(e.into()),
        }
        let created = self.recreator.create(&parse(recipe)?, &wanted.container)?;
        Ok((created.key()?, Some(created)))
    }

    fn settled(&self, record: &Record) -> Result<Settled, EndError> {
        let located = Located::read(&record.facts);
        let container = match located.as_ref().map(Located::key).transpose()? {
            None => None,
            Some(key) => match Container::open(self.config.clone(), &key) {
                Ok(container) => Some(container),
                // It was removed: nothing of its application is left.
                Err(e) if e.kind() == Kind::NotFound => None,
                Err(e) => return Err(e.into()),
            },
        };
        Ok(Settled {
            id: record.id.to_string(),
            container,
            made: located.and_then(|located| located.created),
            recreator: self.recreator.clone(),
        })
    }
}

fn parse(recipe: &Value) -> Result<Recipe, EndError> {
    Ok(Recipe::parse(&serde_json::to_vec(recipe)?)?)
}

impl Host for ThisHost {
    fn lacks_image(&self, wanted: &Wanted) -> Result<bool, EndError> {
        let Some(recipe) = &wanted.create else { return Ok(false) };
        if inventory::find(&self.config, &wanted.container, None).is_ok() {
            return Ok(false);
        }
        let recipe = parse(recipe)?;
        self.recreator.check(&recipe, &wanted.container)?;
        Ok(!self.recreator.has_image(&recipe)?)
    }

    fn receive_image(&self, wanted: &Wanted, content: &mut dyn Read) -> Result<(), EndError> {
        let recipe = wanted.create.as_ref().ok_or("no container is to be made")?;
        Ok(self.recreator.import_image(&parse(recipe)?, content)?)
    }

    fn waiting(&self, id: MigrationId, peer: &str, wanted: &Wanted) -> Result<Placed, EndError> {
        let agreed = Agreed::deserialize(&wanted.options)?;
        let (key, created) = self.place(wanted)?;
        let undo = Undo { created, recreator: self.recreator.clone() };
        let addresses = self.addresses(peer, agreed.address.as_deref());
        let waiting = ends::waiting(self.config.clone(), &key, &id.to_string(), addresses);
        let waiting = waiting.inspect_err(|_| undo.run())?;
        let container = Container::open(self.config.clone(), &key)?;
        let located = Located { created: undo.created.clone(), ..Located::at(&container, agreed.hooks) };
        self.live.placed(id, peer, &agreed.from, key.id());
        let facts = located.to_value()?;
        Ok(Placed { waiting: Box::new(Made { waiting, undo }), facts })
    }

    fn found(&self, record: &Record) -> Result<Box<dyn Waiting>, EndError> {
        Ok(Box::new(self.settled(record)?))
    }

    fn forsaken(&self, record: &Record, reason: &str) -> Result<(), EndError> {
        let Some(container) = self.settled(record)?.container else { return Ok(()) };
        container.forsake(reason).map_err(|e| e.report().into())
    }
}

impl Origin for ThisHost {
    fn send_image(&self, wanted: &Wanted, out: &mut dyn Write) -> Result<(), EndError> {
        let recipe = wanted.create.as_ref().ok_or("no container is to be made")?;
        self.recreator.export_image(&parse(recipe)?, out)?;
        Ok(())
    }

    fn found(&self, record: &Record) -> Result<Box<dyn Leaving>, EndError> {
        Ok(Box::new(self.settled(record)?))
    }
}

/// What was made for a migration, if anything was.
#[derive(Debug)]
struct Undo {
    created: Option<Created>,
    recreator: Recreator,
}

impl Undo {
    fn run(&self) {
        let Some(created) = &self.created else { return };
        if let Err(e) = self.recreator.undo(created) {
            tracing::warn!(container = created.id, error = %e, "what was made for a migration stays");
        }
    }
}

/// A container that waits, and goes when nothing comes of it, if it was made for that.
#[derive(Debug)]
struct Made {
    waiting: Box<dyn Waiting>,
    undo: Undo,
}

impl Waiting for Made {
    fn check(&mut self, passport: &Value) -> Result<(), EndError> {
        self.waiting.check(passport)
    }

    fn unpack_files(&mut self, archive: &mut dyn Read) -> Result<Files, EndError> {
        self.waiting.unpack_files(archive)
    }

    fn ready(&mut self, strategy: Strategy) -> Result<(), EndError> {
        self.waiting.ready(strategy)
    }

    fn round(&mut self, plan: &[u8]) -> Result<Arc<dyn Place>, EndError> {
        self.waiting.round(plan)
    }

    fn round_is_there(&mut self) -> Result<(), EndError> {
        self.waiting.round_is_there()
    }

    fn still_waits(&mut self) -> Result<(), EndError> {
        self.waiting.still_waits()
    }

    fn compare(&mut self, fingerprint: &[u8]) -> Result<u64, EndError> {
        self.waiting.compare(fingerprint)
    }

    fn owed(&mut self, errand: &Errand) -> Result<(), EndError> {
        self.waiting.owed(errand)
    }

    fn restore(&mut self, dumped: &Value, images: Arc<dyn ImageSource>) -> Result<(), EndError> {
        self.waiting.restore(dumped, images)
    }

    fn verify(&mut self) -> Result<(), EndError> {
        self.waiting.verify()
    }

    fn release(self: Box<Self>) -> Result<Option<Box<dyn Owing>>, EndError> {
        self.waiting.release()
    }

    fn lose(self: Box<Self>, reason: &str) -> Result<(), EndError> {
        self.waiting.lose(reason)
    }

    fn abandon(self: Box<Self>) -> Result<(), EndError> {
        self.waiting.abandon()?;
        self.undo.run();
        Ok(())
    }
}

/// A container whose migration began in a daemon that is gone: only the decision is left to be carried out.
#[derive(Debug)]
struct Settled {
    id: String,
    container: Option<Container>,
    made: Option<Created>,
    recreator: Recreator,
}

impl Settled {
    fn settle(&self, verdict: Verdict) -> Result<(), EndError> {
        let Some(container) = &self.container else { return Ok(()) };
        container.settle(&self.id, verdict).map_err(|e| e.report().into())
    }
}

/// An application that was owed memory, and is gone with its container.
#[derive(Debug)]
struct Gone;

impl Owing for Gone {
    fn wait(&self, _: Duration) -> Result<bool, String> {
        Err("its container was removed".into())
    }

    fn told(&self) -> (u64, u64) {
        (0, 0)
    }

    fn settle(self: Box<Self>) -> Result<(), EndError> {
        Ok(())
    }

    fn lose(self: Box<Self>, _: &str) -> Result<(), EndError> {
        Ok(())
    }
}

/// Nobody asks for more than the decision.
fn too_late<T>() -> Result<T, EndError> {
    Err("the daemon that began this migration is gone".into())
}

impl Leaving for Settled {
    fn passport(&mut self) -> Result<Value, EndError> {
        too_late()
    }

    fn pack_files(&mut self, _: &mut dyn Write) -> Result<Files, EndError> {
        too_late()
    }

    fn choose(&mut self, _: Strategy) -> Result<Choice, EndError> {
        too_late()
    }

    fn ready(&mut self, _: Strategy) -> Result<(), EndError> {
        too_late()
    }

    fn round(&mut self, _: Pass) -> Result<Round, EndError> {
        too_late()
    }

    fn throttle(&mut self, _: u32) -> Result<(), EndError> {
        too_late()
    }

    fn fingerprint(&mut self) -> Result<Vec<u8>, EndError> {
        too_late()
    }

    fn freeze(&mut self) -> Result<(), EndError> {
        too_late()
    }

    fn dump(&mut self, _: &mut dyn Images) -> Result<Value, EndError> {
        too_late()
    }

    fn memory(&self) -> Result<Arc<dyn Memory>, EndError> {
        too_late()
    }

    fn owed(&self) -> Result<Arc<dyn Memory>, EndError> {
        let container =
            self.container.as_ref().ok_or("the container is gone, and its application with it")?;
        ends::owed(container, &self.id)
    }

    fn fence(&mut self) -> Result<(), EndError> {
        too_late()
    }

    fn resume(self: Box<Self>) -> Result<(), EndError> {
        self.settle(Verdict::Here)
    }

    fn end(self: Box<Self>) -> Result<(), EndError> {
        self.settle(Verdict::Elsewhere)
    }
}

impl Waiting for Settled {
    fn check(&mut self, _: &Value) -> Result<(), EndError> {
        too_late()
    }

    fn unpack_files(&mut self, _: &mut dyn Read) -> Result<Files, EndError> {
        too_late()
    }

    fn ready(&mut self, _: Strategy) -> Result<(), EndError> {
        too_late()
    }

    fn round(&mut self, _: &[u8]) -> Result<Arc<dyn Place>, EndError> {
        too_late()
    }

    fn round_is_there(&mut self) -> Result<(), EndError> {
        too_late()
    }

    fn still_waits(&mut self) -> Result<(), EndError> {
        too_late()
    }

    fn compare(&mut self, _: &[u8]) -> Result<u64, EndError> {
        too_late()
    }

    fn restore(&mut self, _: &Value, _: Arc<dyn ImageSource>) -> Result<(), EndError> {
        too_late()
    }

    fn verify(&mut self) -> Result<(), EndError> {
        too_late()
    }

    fn release(self: Box<Self>) -> Result<Option<Box<dyn Owing>>, EndError> {
        self.settle(Verdict::Here).map(|()| None)
    }

    fn follow(self: Box<Self>) -> Result<Box<dyn Owing>, EndError> {
        match &self.container {
            Some(container) => ends::follow(container, &self.id),
            None => Ok(Box::new(Gone)),
        }
    }

    fn lose(self: Box<Self>, reason: &str) -> Result<(), EndError> {
        let Some(container) = &self.container else { return Ok(()) };
        container.settle_lost(&self.id, reason).map_err(|e| e.report().into())
    }

    fn abandon(self: Box<Self>) -> Result<(), EndError> {
        self.settle(Verdict::Elsewhere)?;
        let undo = Undo { created: self.made.clone(), recreator: self.recreator.clone() };
        undo.run();
        Ok(())
    }
}
