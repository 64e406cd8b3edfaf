//! The protocol's words for images and memory, and the engine's.

use std::io::{self, Read};
use std::sync::Arc;

use fastmig_engine::migration::{ImageSink, ImageSource, OwedMemory, ProcessMemory, Room, RoundMemory};
use fastmig_migrate::ends;

/// Where CRIU's images go.
pub(super) struct Sink<'a>(pub(super) &'a mut dyn ends::Images);

impl ImageSink for Sink<'_> {
    fn image(&mut self, name: &str, content: Vec<u8>) -> io::Result<()> {
        self.0.image(name, content)
    }

    fn part(&mut self, name: &str, content: Vec<u8>, last: bool) -> io::Result<()> {
        self.0.part(name, content, last)
    }
}

/// Where CRIU's images come from.
#[derive(Debug)]
pub(super) struct Source(pub(super) Arc<dyn ends::ImageSource>);

impl ImageSource for Source {
    fn open(&self, name: &str) -> Option<Box<dyn Read + Send>> {
        self.0.open(name)
    }

    fn names(&self) -> Vec<String> {
        self.0.names()
    }
}

/// The memory of a stopped application.
#[derive(Debug)]
pub(super) struct Memory(pub(super) ProcessMemory);

impl ends::Memory for Memory {
    fn images(&self) -> Vec<(String, u64)> {
        self.0.images()
    }

    fn read(&self, image: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read(image, offset, into)
    }
}

/// Memory that travels in a round.
#[derive(Debug)]
pub(super) struct Round(pub(super) Arc<RoundMemory>);

impl ends::Memory for Round {
    fn images(&self) -> Vec<(String, u64)> {
        self.0.images()
    }

    fn read(&self, image: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read(image, offset, into)
    }
}

/// Memory that follows the application.
#[derive(Debug)]
pub(super) struct Owed(pub(super) Arc<OwedMemory>);

impl ends::Memory for Owed {
    fn images(&self) -> Vec<(String, u64)> {
        self.0.images()
    }

    fn read(&self, image: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read(image, offset, into)
    }
}

/// Where it goes.
#[derive(Debug)]
pub(super) struct Place(pub(super) Room);

impl ends::Place for Place {
    fn write(&self, image: &str, offset: u64, content: &[u8]) -> io::Result<()> {
        self.0.write(image, offset, content)
    }
}
