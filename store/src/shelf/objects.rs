//! Parts and labels as objects, in a directory or in a bucket: `NAME/PUSH/NUMBER` and, written last, `NAME/label.json`.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use fastmig_engine::config::Store as Settings;
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ClientOptions, Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig};

use super::{Shelf, Slot};
use crate::error::caused_by;
use crate::label::{Label, Part, PushId, Wrong, LARGEST_LABEL};
use crate::{credentials, Name, Place, StoreError};

const LABEL: &str = "label.json";

/// Objects that are deleted at a time.
const DELETING: usize = 8;

/// No place is looked through further.
const MOST_OBJECTS: usize = 10_000_000;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Tries after the first one.
const RETRIES: usize = 4;

/// Objects below a prefix.
pub(crate) struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: Key,
    /// The directory, when they lie in one.
    directory: Option<PathBuf>,
    place: String,
    limit: Duration,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Objects {
    /// In a directory, which is made when it is not there.
    pub(crate) fn directory(place: &Place, path: &Path, settings: &Settings) -> Result<Self, StoreError> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(StoreError::io("make", path))?;
        let store = LocalFileSystem::new_with_prefix(path)
            .map_err(|e| StoreError::Failed {
                place: place.to_string(),
                action: "be opened",
                source: e.into(),
            })?
            .with_automatic_cleanup(true)
            .with_fsync(true);
        Ok(Self {
            store: Arc::new(store),
            prefix: Key::default(),
            directory: Some(path.into()),
            place: place.to_string(),
            limit: settings.timeout(),
        })
    }

    /// In a bucket.
    pub(crate) fn bucket(
        place: &Place,
        bucket: &str,
        prefix: &str,
        settings: &Settings,
    ) -> Result<Self, StoreError> {
        let wrong = |problem: String| StoreError::Settings {
            problem,
            remedy: "look at the s3_ lines of [store] in /etc/fastmig/config.toml".into(),
        };
        let limit = settings.timeout();
        let client = ClientOptions::new().with_timeout(limit).with_connect_timeout(CONNECT_LIMIT);
        let retry = RetryConfig { max_retries: RETRIES, retry_timeout: limit, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_region(&settings.s3_region)
            .with_client_options(client)
            .with_retry(retry);
        if !settings.s3_endpoint.is_empty() {
            // Who writes http:// wants it.
            builder = builder
                .with_allow_http(settings.s3_endpoint.starts_with("http://"))
                .with_endpoint(&settings.s3_endpoint)
                .with_virtual_hosted_style_request(false);
        }
        if settings.s3_credentials_file != Path::new("") {
            let keys = credentials::object_store(&settings.s3_credentials_file)?;
            builder = builder.with_access_key_id(keys.id).with_secret_access_key(keys.secret);
            if let Some(token) = keys.token {
                builder = builder.with_token(token);
            }
        }
        let store = builder.build().map_err(|e| wrong(e.to_string()))?;
        let prefix = Key::parse(prefix).map_err(|e| wrong(e.to_string()))?;
        Ok(Self { store: Arc::new(store), prefix, directory: None, place: place.to_string(), limit })
    }

    fn label_key(&self, name: &Name) -> Key {
        self.prefix.clone().join(name.as_str()).join(LABEL)
    }

    fn push_key(&self, name: &Name, push: &PushId) -> Key {
        self.prefix.clone().join(name.as_str()).join(push.as_str())
    }

    fn part_key(&self, slot: &Slot<'_>) -> Key {
        self.push_key(slot.name, slot.push).join(format!("{:05}", slot.number))
    }

    /// Waits for one answer. The store tries again by itself; this is for what hangs all the same.
    async fn within<T>(
        &self,
        action: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, StoreError> {
        let limit = self.limit * 2 + CONNECT_LIMIT;
        match tokio::time::timeout(limit, work).await {
            Ok(result) => result.map_err(|e| self.explain(action, e)),
            Err(_) => Err(StoreError::Slow { place: self.place.clone(), action, limit }),
        }
    }

    fn explain(&self, action: &'static str, error: Error) -> StoreError {
        let place = self.place.clone();
        let words = chain(&error);
        let refused = ["403 Forbidden", "401 Unauthorized"].iter().any(|told| words.contains(told));
        if refused || matches!(error, Error::Unauthenticated { .. } | Error::PermissionDenied { .. }) {
            return StoreError::Unauthorized { place, source: error.into() };
        }
        if words.contains("NoSuchBucket") {
            return StoreError::NoPlace { place, source: error.into() };
        }
        let full = [std::io::ErrorKind::StorageFull, std::io::ErrorKind::QuotaExceeded];
        let told = ["507 ", "StorageFull", "QuotaExceeded", "No space left"];
        if caused_by(&error, |e| full.contains(&e.kind())) || told.iter().any(|told| words.contains(told)) {
            return StoreError::Full { place, source: error.into() };
        }
        match transport(&error) {
            Some(HttpErrorKind::Timeout) => StoreError::Slow { place, action, limit: self.limit },
            Some(HttpErrorKind::Connect | HttpErrorKind::Interrupted) => {
                StoreError::Unreachable { place, source: error.into() }
            }
            _ => StoreError::Failed { place, action, source: error.into() },
        }
    }

    /// An object of at most `largest` bytes; nothing when there is none.
    async fn read(&self, key: &Key, largest: u64) -> Result<Option<Bytes>, StoreError> {
        if let Some(directory) = &self.directory {
            return self.within("read", read_file(directory, key, largest)).await;
        }
        let read = async {
            let found = match self.store.get(key).await {
                Err(Error::NotFound { .. }) => return Ok(None),
                found => found?,
            };
            let mut content = BytesMut::new();
            let mut stream = found.into_stream();
            while let Some(piece) = stream.try_next().await? {
                // One byte too many is enough to tell.
                if (content.len() + piece.len()) as u64 > largest {
                    let source = format!("{key} is larger than {largest} bytes").into();
                    return Err(Error::Generic { store: "hostile", source });
                }
                content.extend_from_slice(&piece);
            }
            Ok(Some(content.freeze()))
        };
        self.within("read", read).await
    }

    async fn remove(&self, key: &Key) -> Result<(), StoreError> {
        let remove = async {
            match self.store.delete(key).await {
                Err(Error::NotFound { .. }) => Ok(()),
                result => result,
            }
        };
        self.within("delete", remove).await
    }

    /// What of ours lies below `below`: key, place, and when it came.
    async fn found(&self, below: &Key) -> Result<Vec<Found>, StoreError> {
        let mut objects = self.store.list(Some(below));
        let mut found = Vec::new();
        while let Some(object) = self.within("list", objects.try_next()).await? {
            let came = SystemTime::from(object.last_modified);
            found.extend(self.place_of(&object.location).map(|what| Found {
                key: object.location,
                what,
                came,
            }));
            if found.len() > MOST_OBJECTS {
                return Err(StoreError::Failed {
                    place: self.place.clone(),
                    action: "list",
                    source: format!("more than {MOST_OBJECTS} objects").into(),
                });
            }
        }
        Ok(found)
    }

    /// What `key` is, if it is ours: nobody else's object is ever touched.
    fn place_of(&self, key: &Key) -> Option<What> {
        let words: Vec<_> = key.prefix_match(&self.prefix)?.map(|part| part.as_ref().to_owned()).collect();
        let name: Name = words.first()?.parse().ok()?;
        match &words[1..] {
            [label] if label == LABEL => Some(What::Label(name)),
            [push, number] if number.len() >= 5 && number.bytes().all(|b| b.is_ascii_digit()) => {
                Some(What::Part(name, PushId::try_from(push.clone()).ok()?))
            }
            _ => None,
        }
    }

    /// The label's own push is known; another one below the same name was interrupted.
    async fn remove_push(&self, name: &Name, push: &PushId) -> Result<(), StoreError> {
        let below = self.push_key(name, push);
        let found = self.found(&below).await?;
        futures_util::stream::iter(found)
            .map(|found| async move { self.remove(&found.key).await })
            .buffer_unordered(DELETING)
            .try_collect::<()>()
            .await?;
        let Some(directory) = &self.directory else { return Ok(()) };
        // A part whose writing was cut short has a name of its own.
        let directory = directory.join(name.as_str());
        match std::fs::remove_dir_all(directory.join(push.as_str())) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io("remove", &directory)(e));
            }
            _ => {}
        }
        // Something else may be in it.
        let _ = std::fs::remove_dir(directory);
        Ok(())
    }
}

struct Found {
    key: Key,
    what: What,
    came: SystemTime,
}

enum What {
    Label(Name),
    Part(Name, PushId),
}

/// One of a directory, which takes care of more than its library would.
async fn read_file(directory: &Path, key: &Key, largest: u64) -> Result<Option<Bytes>, Error> {
    let (directory, key) = (directory.to_path_buf(), key.to_string());
    let read = tokio::task::spawn_blocking(move || super::local::read(&directory, &key, largest));
    let failed = |source| Error::Generic { store: "directory", source };
    let content = read.await.map_err(|e| failed(e.into()))?.map_err(|e| failed(e.into()))?;
    Ok(content.map(Bytes::from))
}

#[async_trait]
impl Shelf for Objects {
    async fn put(&self, at: &Slot<'_>, _part: &Part, content: Bytes) -> Result<(), StoreError> {
        let key = self.part_key(at);
        self.within("take a part", self.store.put(&key, content.into())).await.map(drop)
    }

    async fn finish(&self, label: &Label) -> Result<(), StoreError> {
        let key = self.label_key(&label.name);
        let text = Bytes::from(serde_json::to_vec(label).map_err(|e| StoreError::Failed {
            place: self.place.clone(),
            action: "take the label",
            source: e.into(),
        })?);
        let write = async {
            let once = PutOptions::from(PutMode::Create);
            match self.store.put_opts(&key, text.clone().into(), once).await {
                // Not every object store can do that.
                Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {
                    self.store.put(&key, text.into()).await
                }
                result => result,
            }
        };
        let occupied =
            || StoreError::Occupied { place: self.place.clone(), name: label.name.as_str().to_owned() };
        let limit = self.limit * 2;
        match tokio::time::timeout(limit, write).await {
            Ok(Ok(_)) => Ok(()),
            // A repeated request meets its own work.
            Ok(Err(Error::AlreadyExists { .. } | Error::Precondition { .. })) => {
                match self.label(&label.name).await {
                    Ok(found) if found == *label => Ok(()),
                    _ => Err(occupied()),
                }
            }
            Ok(Err(e)) => Err(self.explain("take the label", e)),
            Err(_) => Err(StoreError::Slow { place: self.place.clone(), action: "take the label", limit }),
        }
    }

    async fn discard(&self, name: &Name, push: &PushId) -> Result<(), StoreError> {
        self.remove_push(name, push).await
    }

    async fn label(&self, name: &Name) -> Result<Label, StoreError> {
        let (place, missing) = (self.place.clone(), name.as_str().to_owned());
        let Some(text) = self.read(&self.label_key(name), LARGEST_LABEL).await? else {
            return Err(StoreError::NotFound { place, name: missing });
        };
        Label::read(&text, name).map_err(|wrong| match wrong {
            Wrong::Format(found) => StoreError::Format { place, name: missing, found },
            Wrong::Content(problem) => StoreError::Damaged { place, name: missing, problem },
        })
    }

    async fn get(&self, at: &Slot<'_>, part: &Part) -> Result<Bytes, StoreError> {
        let found = self.read(&self.part_key(at), part.size).await?;
        found.ok_or_else(|| StoreError::Damaged {
            place: self.place.clone(),
            name: at.name.as_str().into(),
            problem: format!("part {} is missing", at.number),
        })
    }

    async fn names(&self) -> Result<Vec<Name>, StoreError> {
        let below = Some(&self.prefix).filter(|prefix| !prefix.as_ref().is_empty());
        let found = self.within("list", self.store.list_with_delimiter(below)).await?;
        let names = found.common_prefixes.iter().filter_map(|key| key.filename()?.parse().ok());
        Ok(names.collect())
    }

    async fn delete(&self, label: &Label) -> Result<(), StoreError> {
        self.remove(&self.label_key(&label.name)).await?;
        self.remove_push(&label.name, &label.push).await
    }

    async fn leftovers(&self, age: Duration) -> Result<Vec<(Name, PushId)>, StoreError> {
        let mut pushes = self.directory.as_deref().map(unfinished).unwrap_or_default();
        let mut labelled = Vec::new();
        for found in self.found(&self.prefix).await? {
            match found.what {
                What::Label(name) => labelled.push(name),
                What::Part(name, push) => {
                    let last = pushes.entry((name, push)).or_insert(found.came);
                    *last = found.came.max(*last);
                }
            }
        }
        for name in labelled {
            match self.label(&name).await {
                Ok(label) => drop(pushes.remove(&(name, label.push))),
                // A label that cannot be read keeps all that lies with it.
                Err(_) => pushes.retain(|(other, _), _| *other != name),
            }
        }
        let now = SystemTime::now();
        let is_old = |came: &SystemTime| now.duration_since(*came).is_ok_and(|since| since >= age);
        Ok(pushes.into_iter().filter(|(_, came)| is_old(came)).map(|(push, _)| push).collect())
    }
}

/// The pushes that have a directory: what a process was writing when it was killed is no object yet.
fn unfinished(directory: &Path) -> BTreeMap<(Name, PushId), SystemTime> {
    let mut pushes = BTreeMap::new();
    for (name, below) in entries::<Name>(directory) {
        for (push, parts) in entries::<PushId>(&below) {
            // It changes with each part that is begun or finished.
            if let Ok(changed) = std::fs::symlink_metadata(&parts).and_then(|status| status.modified()) {
                pushes.insert((name.clone(), push), changed);
            }
        }
    }
    pushes
}

/// The directories in `directory` whose names are of this kind.
fn entries<T: TryFrom<String>>(directory: &Path) -> Vec<(T, PathBuf)> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories
        .filter_map(|entry| Some((T::try_from(entry.file_name().into_string().ok()?).ok()?, entry.path())))
        .collect()
}

/// What went wrong on the way, if it was that.
fn transport(error: &(dyn std::error::Error + 'static)) -> Option<HttpErrorKind> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            return Some(http.kind());
        }
        cause = error.source();
    }
    None
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push_str(&error.to_string());
        cause = error.source();
    }
    words
}
