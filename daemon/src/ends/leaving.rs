//! An application that leaves: the engine's departure.

use std::io::Write;
use std::sync::Arc;

use fastmig_engine::migration::{Departure, Terms};
use fastmig_engine::{passport, Container};
use fastmig_migrate::ends::{Choice, EndError, Files, Images, Leaving, Memory, Pass, Round};
use fastmig_migrate::options::Strategy;
use serde_json::Value;

use super::{images, told, way, Papers};

#[derive(Debug)]
pub(super) struct Leaver {
    container: Container,
    departure: Departure,
    wanted: passport::Request,
}

impl Leaver {
    pub(super) fn new(container: Container, departure: Departure, terms: &Terms) -> Self {
        let wanted = passport::Request {
            volumes: terms.volumes.clone(),
            tcp: terms.tcp,
            binds: terms.binds,
            same: terms.same.clone(),
        };
        Self { container, departure, wanted }
    }
}

impl Leaving for Leaver {
    fn passport(&mut self) -> Result<Value, EndError> {
        let passport = self.container.passport(&self.wanted).map_err(told)?.to_value();
        let ticket = self.departure.ticket().map_err(told)?;
        Ok(serde_json::to_value(Papers { passport, ticket })?)
    }

    fn pack_files(&mut self, out: &mut dyn Write) -> Result<Files, EndError> {
        let summary = self.departure.pack_files(out).map_err(told)?;
        Ok(Files { entries: summary.entries, bytes: summary.bytes })
    }

    fn choose(&mut self, asked: Strategy) -> Result<Choice, EndError> {
        let (strategy, why) = match (asked, self.container.trackable()) {
            (Strategy::StopCopy, _) => (Strategy::StopCopy, "asked for".to_owned()),
            (asked, Ok(_)) if asked.has_rounds() => (asked, "asked for".to_owned()),
            (asked, Err(reason)) if asked.has_rounds() => {
                let what = "memory cannot travel while the application runs";
                return Err(format!("{what}: {reason}; ask for --strategy stop-copy or auto").into());
            }
            (_, Ok(how)) => {
                let what = "memory can travel while the application runs";
                (Strategy::PreCopy, format!("{what}: this host tracks what it writes by {how}"))
            }
            (_, Err(reason)) => {
                (Strategy::StopCopy, format!("this host cannot track what it writes: {reason}"))
            }
        };
        Ok(Choice { strategy, why })
    }

    fn ready(&mut self, strategy: Strategy) -> Result<(), EndError> {
        self.departure.ready(way(strategy)).map_err(told)
    }

    fn round(&mut self, pass: Pass) -> Result<Round, EndError> {
        let round = self.departure.round(pass == Pass::Owe).map_err(told)?;
        let memory = Arc::new(images::Round(round.memory));
        let owed = round.owed.map(|owed| Arc::new(images::Owed(owed)) as Arc<dyn Memory>);
        let (scan, tracked, processes) = (round.scan, round.tracked, round.processes);
        Ok(Round { plan: round.plan, memory, owed, scan, tracked, processes })
    }

    fn throttle(&mut self, percent: u32) -> Result<(), EndError> {
        self.departure.throttle(percent).map_err(told)
    }

    fn freeze(&mut self) -> Result<(), EndError> {
        self.departure.freeze().map_err(told)
    }

    fn dump(&mut self, images: &mut dyn Images) -> Result<Value, EndError> {
        let manifest = self.departure.dump(&mut images::Sink(images)).map_err(told)?;
        Ok(serde_json::to_value(manifest)?)
    }

    fn fingerprint(&mut self) -> Result<Vec<u8>, EndError> {
        self.departure.fingerprint().map_err(told)
    }

    fn memory(&self) -> Result<Arc<dyn Memory>, EndError> {
        let memory = self.departure.memory().map_err(told)?;
        Ok(Arc::new(images::Memory(memory)))
    }

    fn owed(&self) -> Result<Arc<dyn Memory>, EndError> {
        Err("it owes what its last round has shown".into())
    }

    fn fence(&mut self) -> Result<(), EndError> {
        self.departure.fence().map_err(told)
    }

    fn resume(self: Box<Self>) -> Result<(), EndError> {
        self.departure.resume().map_err(told)
    }

    fn hang_up(&mut self) {
        self.departure.hang_up();
    }

    fn end(self: Box<Self>) -> Result<(), EndError> {
        self.departure.end().map_err(told)
    }
}
