//! The operations on a place: push, pull, list, delete, keep, prune.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use bytes::Bytes;
use fastmig_engine::config::Store as Settings;
use fastmig_engine::image::Manifest;
use futures_util::{stream, StreamExt, TryStreamExt};
use serde::Serialize;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::archive::{self, Unpacked};
use crate::codec::{self, Locked, Packing};
use crate::label::{Label, Part, PushId, FORMAT};
use crate::parts::{describe, Outgoing, PartReader, PartWriter, IN_FLIGHT, QUEUE};
use crate::shelf::{self, Shelf, Slot};
use crate::{Name, Place, StoreError};

/// Labels that are read at a time.
const READING: usize = 8;

/// For the parts on the link when a push is to end.
const GRACE: Duration = Duration::from_secs(5);

/// Left free on the host's disk by a pull.
const RESERVE: u64 = 16 << 20;

/// A checkpoint that is to be stored.
#[derive(Debug, Clone)]
pub struct Push {
    /// The container that it is of, as its owner calls it: what retention and [`Store::newest`] go by.
    pub container: String,
    /// Its name; made of the container's and the time when not given.
    pub name: Option<Name>,
    /// Whether it is encrypted.
    pub encrypt: bool,
}

/// What a push came to.
#[derive(Debug, Clone, Serialize)]
pub struct Pushed {
    /// Where it is.
    pub location: String,
    /// Its name.
    pub name: Name,
    /// Bytes in its files.
    pub bytes: u64,
    /// Bytes that are stored.
    pub stored: u64,
    /// Whether it is encrypted.
    pub encrypted: bool,
}

/// What a pull came to.
#[derive(Debug, Clone, Serialize)]
pub struct Pulled {
    /// Where it was.
    pub location: String,
    /// Where it is now.
    pub path: PathBuf,
    /// Bytes in its files.
    pub bytes: u64,
    /// Bytes that came.
    pub stored: u64,
}

/// A place with checkpoints.
#[derive(Debug)]
pub struct Store {
    place: Place,
    settings: Settings,
    shelf: Box<dyn Shelf>,
}

impl Store {
    /// Opens a place; nothing is asked of it yet. Must be called, and used, in a tokio runtime with more than one thread.
    ///
    /// # Errors
    /// When the settings lack what the place needs.
    pub fn open(place: &Place, settings: &Settings) -> Result<Self, StoreError> {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            // Somebody else's choice serves as well.
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        Ok(Self { place: place.clone(), settings: settings.clone(), shelf: shelf::open(place, settings)? })
    }

    /// The place.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Stores the checkpoint in `directory`, which stays. Should `stop` come first, nothing of it stays.
    ///
    /// # Errors
    /// When the checkpoint is damaged, its name taken, or the place fails: there is no checkpoint of this name then.
    pub async fn push(
        &self,
        directory: &Path,
        push: &Push,
        stop: impl Future<Output = ()>,
    ) -> Result<Pushed, StoreError> {
        let manifest = Manifest::read(directory)?;
        let packing = Packing::new(&self.settings, push.encrypt)?;
        let name = push.name.clone().map_or_else(|| Name::now(&push.container), Ok)?;
        self.require_free(&name).await?;
        let id = PushId::new().map_err(StoreError::io("read", Path::new("/dev/urandom")))?;
        let bytes = manifest.files.iter().map(|file| file.size).sum();
        let (created, encrypted) = (manifest.created.clone(), packing.encrypts());

        let (halt, halted) = watch::channel(false);
        let work = async {
            let parts = self.transfer(directory, manifest, packing, &name, &id, &halted).await?;
            let stored = parts.iter().map(|part| part.size).sum();
            let container = push.container.clone();
            let (name, push) = (name.clone(), id.clone());
            let label =
                Label { format: FORMAT, name, container, created, bytes, stored, encrypted, push, parts };
            self.shelf.finish(&label).await?;
            Ok(label)
        };
        let result = {
            tokio::pin!(work);
            tokio::select! {
                result = &mut work => result,
                () = stop => {
                    halt.send_replace(true);
                    // What is on the link arrives, or it would after it was taken back.
                    tokio::time::timeout(GRACE, work).await.unwrap_or(Err(StoreError::Interrupted))
                }
            }
        };
        if result.is_err() {
            self.discard(&name, &id).await;
        }
        let Label { stored, .. } = result?;
        Ok(Pushed { location: self.place.with(&name), name, bytes, stored, encrypted })
    }

    async fn require_free(&self, name: &Name) -> Result<(), StoreError> {
        match self.shelf.label(name).await {
            Err(StoreError::NotFound { .. }) => Ok(()),
            Ok(_) | Err(StoreError::Damaged { .. } | StoreError::Format { .. }) => {
                Err(StoreError::Occupied { place: self.place.to_string(), name: name.as_str().into() })
            }
            Err(e) => Err(e),
        }
    }

    /// Packs on one side and stores on the other.
    async fn transfer(
        &self,
        directory: &Path,
        manifest: Manifest,
        packing: Packing,
        name: &Name,
        push: &PushId,
        halted: &watch::Receiver<bool>,
    ) -> Result<Vec<Part>, StoreError> {
        let (out, parts) = mpsc::channel(QUEUE);
        let from = directory.to_owned();
        let packed = spawn_blocking(move || {
            let writer = packing.pack(PartWriter::new(out), |out| archive::write(&from, &manifest, out))?;
            writer.finish()
        });
        // What the place says comes first: when it gives up, the packing fails only for that.
        let stored = self.store_parts(parts, name, push, halted).await?;
        match packed.await {
            Ok(Ok(())) => Ok(stored),
            Ok(Err(e)) => Err(StoreError::io("pack", directory)(e)),
            Err(e) => Err(StoreError::io("pack", directory)(std::io::Error::other(e))),
        }
    }

    async fn store_parts(
        &self,
        parts: Receiver<Outgoing>,
        name: &Name,
        push: &PushId,
        halted: &watch::Receiver<bool>,
    ) -> Result<Vec<Part>, StoreError> {
        let parts = stream::unfold(parts, |mut parts| async { parts.recv().await.map(|part| (part, parts)) });
        let mut stored: Vec<(usize, Part)> = parts
            .take_until(is_true(halted.clone()))
            .map(|Outgoing { number, part, content }| async move {
                self.shelf.put(&Slot { name, push, number }, &part, content).await?;
                Ok::<_, StoreError>((number, part))
            })
            .buffer_unordered(IN_FLIGHT)
            .try_collect()
            .await?;
        // The stream may have ended before its time.
        if *halted.borrow() {
            return Err(StoreError::Interrupted);
        }
        stored.sort_by_key(|(number, _)| *number);
        Ok(stored.into_iter().map(|(_, part)| part).collect())
    }

    /// Takes back what was stored of a failed push; what resists is [`Store::prune`]'s.
    async fn discard(&self, name: &Name, push: &PushId) {
        // The label may have arrived although nobody said so: it is then a checkpoint, and stays one.
        match self.shelf.label(name).await {
            Ok(label) if label.push == *push => return,
            _ => {}
        }
        if let Err(e) = self.shelf.discard(name, push).await {
            tracing::warn!(place = %self.place, %name, error = e.report(), "parts of a failed push stay: prune them");
        }
    }

    /// Brings the checkpoint `name` to `path`, where nothing or an empty directory may be.
    ///
    /// # Errors
    /// When it is not there, damaged, not for us, or does not fit on the disk: nothing is left at `path` then.
    pub async fn pull(
        &self,
        name: &Name,
        path: &Path,
        stop: impl Future<Output = ()>,
    ) -> Result<Pulled, StoreError> {
        let label = self.shelf.label(name).await?;
        let identities =
            if label.encrypted { Some(codec::identities(&self.settings.identity_file)?) } else { None };
        let unpacked = Unpacked::begin(path).map_err(StoreError::io("make", path))?;
        require_room(path, label.bytes)?;
        let (out, parts) = mpsc::channel(QUEUE);
        let bytes = label.bytes;
        let unpacking = spawn_blocking(move || {
            let mut archive =
                codec::unpack(PartReader::new(parts), identities.as_deref()).map_err(Unpacking::from)?;
            unpacked.fill(&mut archive, bytes).map_err(Unpacking::Damaged)?;
            Ok::<_, Unpacking>(unpacked)
        });
        let fetched = tokio::select! {
            result = self.fetch(&label, out) => result,
            () = stop => Err(StoreError::Interrupted),
        };
        // It ends by itself, as there is nothing more to read; only then is the directory gone.
        let outcome = unpacking.await;
        fetched?;
        let unpacked = match outcome {
            Ok(Ok(unpacked)) => unpacked,
            Ok(Err(Unpacking::NoKey)) => {
                let identities = self.settings.identity_file.clone();
                return Err(StoreError::Closed { name: name.as_str().into(), identities });
            }
            Ok(Err(Unpacking::Damaged(problem))) => return Err(self.damaged(name, problem)),
            Err(e) => return Err(self.damaged(name, e.to_string())),
        };
        unpacked.publish().map_err(StoreError::io("put in place", path))?;
        Ok(Pulled { location: self.place.with(name), path: path.into(), bytes, stored: label.stored })
    }

    async fn fetch(&self, label: &Label, out: Sender<Bytes>) -> Result<(), StoreError> {
        let (name, push) = (&label.name, &label.push);
        let parts = stream::iter(label.parts.iter().enumerate());
        let mut parts = parts
            .map(|(number, part)| async move {
                let content = self.shelf.get(&Slot { name, push, number }, part).await?;
                if describe(&content) != *part {
                    return Err(self.damaged(name, format!("part {number} is not what was stored")));
                }
                Ok(content)
            })
            .buffered(IN_FLIGHT);
        while let Some(part) = parts.try_next().await? {
            // Whoever unpacks has found something wrong, and says it.
            if out.send(part).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn damaged(&self, name: &Name, problem: String) -> StoreError {
        StoreError::Damaged { place: self.place.to_string(), name: name.as_str().into(), problem }
    }

    /// The checkpoints that are here, the oldest first. Those with a damaged label are left out.
    ///
    /// # Errors
    /// When the place fails.
    pub async fn list(&self) -> Result<Vec<Label>, StoreError> {
        let names = self.shelf.names().await?;
        let labels = stream::iter(names)
            .map(|name| async move {
                match self.shelf.label(&name).await {
                    Ok(label) => Ok(Some(label)),
                    Err(StoreError::NotFound { .. }) => Ok(None),
                    Err(e @ (StoreError::Damaged { .. } | StoreError::Format { .. })) => {
                        tracing::warn!(%name, error = e.report(), "left out");
                        Ok(None)
                    }
                    Err(e) => Err(e),
                }
            })
            .buffer_unordered(READING);
        let mut labels: Vec<Label> = labels.try_filter_map(|label| async { Ok(label) }).try_collect().await?;
        labels.sort_by(|a, b| (&a.created, &a.name).cmp(&(&b.created, &b.name)));
        Ok(labels)
    }

    /// The youngest checkpoint of `container`.
    ///
    /// # Errors
    /// When there is none, or the place fails.
    pub async fn newest(&self, container: &str) -> Result<Name, StoreError> {
        let labels = self.list().await?;
        let newest = labels.into_iter().rfind(|label| label.container == container).map(|label| label.name);
        newest
            .ok_or_else(|| StoreError::NoneOf { place: self.place.to_string(), container: container.into() })
    }

    /// Removes the checkpoint `name`.
    ///
    /// # Errors
    /// When it is not there, or the place fails or does not allow it.
    pub async fn delete(&self, name: &Name) -> Result<(), StoreError> {
        let label = self.shelf.label(name).await?;
        self.shelf.delete(&label).await
    }

    /// Removes all but the `count` youngest checkpoints of `container`, and answers their names.
    ///
    /// # Errors
    /// When the place fails or does not allow it.
    pub async fn keep(&self, container: &str, count: usize) -> Result<Vec<Name>, StoreError> {
        let mut labels = self.list().await?;
        labels.retain(|label| label.container == container);
        labels.truncate(labels.len().saturating_sub(count));
        for label in &labels {
            self.shelf.delete(label).await?;
        }
        Ok(labels.into_iter().map(|label| label.name).collect())
    }

    /// Removes what interrupted pushes have left that nobody has added to for `age`, and answers the names they were for.
    ///
    /// # Errors
    /// When the place fails or does not allow it.
    pub async fn prune(&self, age: Duration) -> Result<Vec<Name>, StoreError> {
        let mut names = Vec::new();
        for (name, push) in self.shelf.leftovers(age).await? {
            self.shelf.discard(&name, &push).await?;
            names.push(name);
        }
        Ok(names)
    }
}

async fn is_true(mut flag: watch::Receiver<bool>) {
    // Whoever sends it is gone with the push.
    let _ = flag.wait_for(|flag| *flag).await;
}

/// Why nothing comes out of the parts.
enum Unpacking {
    NoKey,
    Damaged(String),
}

impl From<Locked> for Unpacking {
    fn from(locked: Locked) -> Self {
        match locked {
            Locked::NoKey => Self::NoKey,
            Locked::Other(problem) => Self::Damaged(problem),
        }
    }
}

/// Before anything is fetched.
fn require_room(path: &Path, needed: u64) -> Result<(), StoreError> {
    let parent = path.parent().unwrap_or(path);
    let disk = rustix::fs::statvfs(parent).map_err(|e| StoreError::io("look at", parent)(e.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let needed = needed.saturating_add(RESERVE);
    if needed > free {
        return Err(StoreError::NoRoom { path: path.into(), free, needed });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
