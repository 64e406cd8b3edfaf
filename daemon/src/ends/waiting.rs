//! A container that takes an application in: the engine's arrival.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fastmig_engine::image::Manifest;
use fastmig_engine::migration::{Arrival, Ticket};
use fastmig_engine::passport::Passport;
use fastmig_migrate::ends::{self, EndError, Files, Waiting};
use fastmig_migrate::fetch::Errand;
use fastmig_migrate::options::Strategy;
use serde::Deserialize;
use serde_json::Value;

use super::{images, told, way, Papers};
use crate::filler;

#[derive(Debug)]
pub(super) struct Waiter {
    arrival: Arrival,
    /// Of an application that was found to fit.
    ticket: Option<Ticket>,
    /// Where the other host is found.
    addresses: Vec<String>,
}

impl Waiter {
    pub(super) fn new(arrival: Arrival, addresses: Vec<String>) -> Self {
        Self { arrival, ticket: None, addresses }
    }
}

impl Waiting for Waiter {
    fn check(&mut self, passport: &Value) -> Result<(), EndError> {
        let papers = Papers::deserialize(passport)?;
        let passport = Passport::read(&papers.passport)?;
        self.arrival.container().check_passport(&passport)?;
        self.ticket = Some(papers.ticket);
        Ok(())
    }

    fn unpack_files(&mut self, archive: &mut dyn Read) -> Result<Files, EndError> {
        let summary = self.arrival.unpack_files(archive).map_err(told)?;
        Ok(Files { entries: summary.entries, bytes: summary.bytes })
    }

    fn ready(&mut self, strategy: Strategy) -> Result<(), EndError> {
        let ticket = self.ticket.take().ok_or("nothing was found to fit yet")?;
        self.arrival.ready(ticket, way(strategy)).map_err(told)
    }

    fn round(&mut self, plan: &[u8]) -> Result<Arc<dyn ends::Place>, EndError> {
        Ok(Arc::new(images::Place(self.arrival.round(plan).map_err(told)?)))
    }

    fn round_is_there(&mut self) -> Result<(), EndError> {
        self.arrival.round_is_there().map_err(told)
    }

    fn still_waits(&mut self) -> Result<(), EndError> {
        self.arrival.still_waits().map_err(told)
    }

    fn owed(&mut self, errand: &Errand) -> Result<(), EndError> {
        self.arrival.owed(&filler::described(errand, &self.addresses)?).map_err(told)
    }

    fn restore(&mut self, dumped: &Value, images: Arc<dyn ends::ImageSource>) -> Result<(), EndError> {
        let manifest = Manifest::from_value(dumped, Path::new("sent"))?;
        self.arrival.restore(&manifest, images::Source(images)).map_err(told)
    }

    fn compare(&mut self, fingerprint: &[u8]) -> Result<u64, EndError> {
        self.arrival.compare(fingerprint).map_err(told)
    }

    fn verify(&mut self) -> Result<(), EndError> {
        self.arrival.verify().map_err(told)
    }

    fn release(self: Box<Self>) -> Result<Option<Box<dyn ends::Owing>>, EndError> {
        let owing = self.arrival.release().map_err(told)?;
        Ok(owing.map(|owing| Box::new(Owing(owing)) as Box<dyn ends::Owing>))
    }

    fn lose(self: Box<Self>, _: &str) -> Result<(), EndError> {
        self.arrival.abandon().map_err(told)
    }

    fn abandon(self: Box<Self>) -> Result<(), EndError> {
        self.arrival.abandon().map_err(told)
    }
}

/// An application that runs, and is owed memory.
#[derive(Debug)]
pub(super) struct Owing(pub(super) fastmig_engine::migration::Owing);

impl ends::Owing for Owing {
    fn wait(&self, patience: Duration) -> Result<bool, String> {
        self.0.wait(patience)
    }

    fn told(&self) -> (u64, u64) {
        self.0.told()
    }

    fn settle(self: Box<Self>) -> Result<(), EndError> {
        self.0.settle().map_err(told)
    }

    fn lose(self: Box<Self>, reason: &str) -> Result<(), EndError> {
        self.0.lose(reason).map_err(told)
    }
}
