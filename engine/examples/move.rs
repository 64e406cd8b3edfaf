//! Moves the application of one container into another on the same host, through memory alone: `move FROM INTO [ROUNDS]`.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use fastmig_criu::{ImageSink, ImageSource, ProcessMemory};
use fastmig_engine::migration::Terms;
use fastmig_engine::{state, Config, Container, Error};

#[derive(Debug, Default)]
struct Images {
    whole: Mutex<BTreeMap<String, Vec<u8>>>,
    memory: Mutex<Option<Arc<ProcessMemory>>>,
}

struct Sink<'a>(&'a Images);

impl ImageSink for Sink<'_> {
    fn image(&mut self, name: &str, content: Vec<u8>) -> io::Result<()> {
        self.0.whole.lock().unwrap().insert(name.into(), content);
        Ok(())
    }

    fn part(&mut self, name: &str, content: Vec<u8>, _: bool) -> io::Result<()> {
        self.0.whole.lock().unwrap().entry(name.into()).or_default().extend(content);
        Ok(())
    }
}

#[derive(Debug)]
struct Pages {
    memory: Arc<ProcessMemory>,
    name: String,
    at: u64,
    size: u64,
}

impl Read for Pages {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = into.len().min(usize::try_from(self.size - self.at).unwrap());
        self.memory.read(&self.name, self.at, &mut into[..count])?;
        self.at += count as u64;
        Ok(count)
    }
}

impl ImageSource for Images {
    fn open(&self, name: &str) -> Option<Box<dyn Read + Send>> {
        if let Some(content) = self.whole.lock().unwrap().remove(name) {
            return Some(Box::new(io::Cursor::new(content)));
        }
        let memory = self.memory.lock().unwrap().clone()?;
        let (_, size) = memory.images().into_iter().find(|(image, _)| image == name)?;
        Some(Box::new(Pages { memory, name: name.into(), at: 0, size }))
    }
}

fn migrate(config: &Arc<Config>, from: &str, into: &str, id: &str) -> Result<(), Error> {
    let open = |name: &str| Container::open(config.clone(), &state::find(config, name, None)?);
    let terms = Terms { tcp: None, files: true, volumes: None };
    let mut departure = open(from)?.depart(id, &terms)?;
    let mut arrival = open(into)?.arrive(id)?;
    let ticket = departure.ticket()?;
    let mut archive = Vec::new();
    departure.pack_files(&mut archive)?;
    arrival.unpack_files(&mut archive.as_slice())?;
    departure.ready()?;
    arrival.ready(ticket)?;
    let begun = Instant::now();
    let lap = |what: &str| eprintln!("{what}: {:?}", begun.elapsed());
    departure.freeze()?;
    lap("frozen");
    let images = Images::default();
    let manifest = departure.dump(&mut Sink(&images))?;
    lap("dumped");
    *images.memory.lock().unwrap() = Some(Arc::new(departure.memory()?));
    let mut archive = Vec::new();
    departure.pack_files(&mut archive)?;
    arrival.unpack_files(&mut archive.as_slice())?;
    lap("files");
    if let Err(e) = arrival.restore(&manifest, images) {
        arrival.abandon()?;
        departure.resume()?;
        return Err(e);
    }
    lap("held");
    departure.fence()?;
    arrival.release()?;
    lap("released");
    departure.end()?;
    lap("ended");
    Ok(())
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: move FROM INTO [ROUNDS]";
    let (mut from, mut into) = (arguments.next().expect(usage), arguments.next().expect(usage));
    let rounds: u32 = arguments.next().map_or(1, |text| text.parse().expect(usage));
    let config = Arc::new(Config::load().unwrap());
    for round in 0..rounds {
        if let Err(e) = migrate(&config, &from, &into, &format!("m{round}")) {
            eprintln!("{}", e.report());
            std::process::exit(1);
        }
        std::mem::swap(&mut from, &mut into);
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
}
