//! The protocol's words for images and memory, and the engine's.

use std::io::{self, Read};
use std::sync::Arc;

use fastmig_engine::migration::{ImageSink, ImageSource, ProcessMemory};
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
