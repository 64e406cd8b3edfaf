//! An application that leaves: the engine's departure.

use std::io::Write;
use std::sync::Arc;

use fastmig_engine::migration::{Departure, Terms};
use fastmig_engine::{passport, Container};
use fastmig_migrate::ends::{EndError, Files, Images, Leaving, Memory};
use serde_json::Value;

use super::{images, told, Papers};

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

    fn ready(&mut self) -> Result<(), EndError> {
        self.departure.ready().map_err(told)
    }

    fn freeze(&mut self) -> Result<(), EndError> {
        self.departure.freeze().map_err(told)
    }

    fn dump(&mut self, images: &mut dyn Images) -> Result<Value, EndError> {
        let manifest = self.departure.dump(&mut images::Sink(images)).map_err(told)?;
        Ok(serde_json::to_value(manifest)?)
    }

    fn memory(&self) -> Result<Arc<dyn Memory>, EndError> {
        let memory = self.departure.memory().map_err(told)?;
        Ok(Arc::new(images::Memory(memory)))
    }

    fn fence(&mut self) -> Result<(), EndError> {
        self.departure.fence().map_err(told)
    }

    fn resume(self: Box<Self>) -> Result<(), EndError> {
        self.departure.resume().map_err(told)
    }

    fn end(self: Box<Self>) -> Result<(), EndError> {
        self.departure.end().map_err(told)
    }
}
