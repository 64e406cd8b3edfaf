//! All images, as the restore opens them: pushed ones from memory, the application's memory as it comes.

use std::io::Read;
use std::sync::Arc;

use super::{Puller, Store};
use crate::ends::ImageSource;

/// What a restore reads from.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) store: Arc<Store>,
    pub(crate) puller: Arc<Puller>,
}

impl ImageSource for Arrived {
    fn open(&self, name: &str) -> Option<Box<dyn Read + Send>> {
        if let Some(reader) = self.store.take(name) {
            return Some(Box::new(reader));
        }
        self.puller.open(name).map(|reader| Box::new(reader) as Box<dyn Read + Send>)
    }

    fn names(&self) -> Vec<String> {
        self.store.names()
    }
}
