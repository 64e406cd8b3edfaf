//! A checkpoint as an OCI artefact: each part is a layer, the label is the configuration, and the manifest, written last,
//! carries the name as its tag.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use fastmig_engine::config::Store as Settings;
use futures_util::TryStreamExt;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError as Error, OciErrorCode};
use oci_client::manifest::{OciDescriptor, OciImageManifest, OciManifest};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};

use super::{Shelf, Slot};
use crate::label::{Label, Part, PushId, Wrong, LARGEST_LABEL};
use crate::parts::describe;
use crate::{credentials, Name, Place, StoreError};

const ARTEFACT: &str = "application/vnd.fastmig.checkpoint.v1";
const LABEL: &str = "application/vnd.fastmig.checkpoint.label.v1+json";
const PART: &str = "application/vnd.fastmig.checkpoint.part.v1";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Waits between the tries.
const BACK_OFF: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_millis(800),
    Duration::from_millis(2_000),
    Duration::from_millis(5_000),
];

/// Tags in one answer, and at most.
const PAGE: usize = 1_000;
const MOST_TAGS: usize = 100_000;

/// A repository.
pub(crate) struct Registry {
    client: Client,
    /// For what the client cannot do.
    http: reqwest::Client,
    auth: RegistryAuth,
    registry: String,
    repository: String,
    scheme: &'static str,
    place: String,
    limit: Duration,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Registry {
    pub(crate) fn open(
        place: &Place,
        registry: &str,
        repository: &str,
        settings: &Settings,
    ) -> Result<Self, StoreError> {
        let plain = settings.plain_http.iter().any(|host| host == registry);
        let limit = settings.timeout();
        let config = ClientConfig {
            protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
            use_monolithic_push: true,
            connect_timeout: Some(CONNECT_LIMIT),
            read_timeout: Some(limit),
            ..ClientConfig::default()
        };
        let failed = |e: Error| StoreError::Settings {
            problem: format!("no client for {place}: {e}"),
            remedy: "look at the system's certificates".into(),
        };
        let client = Client::try_from(config).map_err(failed)?;
        let http = reqwest::Client::builder().connect_timeout(CONNECT_LIMIT).timeout(limit).build();
        let http = http.map_err(|e| failed(e.into()))?;
        let file = &settings.registry_credentials_file;
        let known = if file == Path::new("") { None } else { credentials::registry(file, registry)? };
        let auth =
            known.map_or(RegistryAuth::Anonymous, |(user, password)| RegistryAuth::Basic(user, password));
        Ok(Self {
            client,
            http,
            auth,
            registry: registry.into(),
            repository: repository.into(),
            scheme: if plain { "http" } else { "https" },
            place: place.to_string(),
            limit,
        })
    }

    fn reference(&self, tag: &Name) -> Reference {
        Reference::with_tag(self.registry.clone(), self.repository.clone(), tag.as_str().into())
    }

    /// Does what can be done again; again while the registry or the way to it is at fault.
    async fn within<T, F>(&self, action: &'static str, work: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut waits = BACK_OFF.iter();
        loop {
            let failure = match tokio::time::timeout(self.limit, work()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(e)) if is_passing(&e) => self.explain(action, e),
                Ok(Err(e)) => return Err(self.explain(action, e)),
                Err(_) => StoreError::Slow { place: self.place.clone(), action, limit: self.limit },
            };
            match waits.next() {
                Some(wait) => tokio::time::sleep(*wait).await,
                None => return Err(failure),
            }
        }
    }

    fn explain(&self, action: &'static str, error: Error) -> StoreError {
        let place = self.place.clone();
        match &error {
            Error::UnauthorizedError { .. } | Error::AuthenticationFailure(_) => {
                StoreError::Unauthorized { place, source: error.into() }
            }
            Error::ServerError { code: 401 | 403, .. } => {
                StoreError::Unauthorized { place, source: error.into() }
            }
            Error::RegistryError { envelope, .. }
                if envelope
                    .errors
                    .iter()
                    .any(|e| matches!(e.code, OciErrorCode::Denied | OciErrorCode::Unauthorized)) =>
            {
                StoreError::Unauthorized { place, source: error.into() }
            }
            Error::ServerError { code: 507, .. } => StoreError::Full { place, source: error.into() },
            Error::ServerError { message, .. } if message.contains("no space left") => {
                StoreError::Full { place, source: error.into() }
            }
            Error::RequestError(e) if e.is_connect() => {
                StoreError::Unreachable { place, source: error.into() }
            }
            Error::RequestError(e) if e.is_timeout() => StoreError::Slow { place, action, limit: self.limit },
            _ => StoreError::Failed { place, action, source: error.into() },
        }
    }

    async fn login(&self) {
        self.client.store_auth_if_needed(&self.registry, &self.auth).await;
    }

    /// The manifest of this name and its digest; nothing when there is none.
    async fn manifest(&self, name: &Name) -> Result<Option<(OciImageManifest, String)>, StoreError> {
        let reference = self.reference(name);
        let pull = || async {
            match self.client.pull_manifest_raw(&reference, &self.auth, &[MANIFEST]).await {
                Ok(found) => Ok(Some(found)),
                Err(e) if is_missing(&e) => Ok(None),
                Err(e) => Err(e),
            }
        };
        let Some((text, digest)) = self.within("answer", pull).await? else { return Ok(None) };
        if text.len() as u64 > LARGEST_LABEL {
            return Err(self.damaged(name, "its manifest is too large"));
        }
        match serde_json::from_slice::<OciImageManifest>(&text) {
            Ok(manifest) if manifest.artifact_type.as_deref() == Some(ARTEFACT) => {
                Ok(Some((manifest, digest)))
            }
            // An image, or something else: none of ours.
            _ => Ok(None),
        }
    }

    async fn blob(&self, digest: &str, largest: u64) -> Result<Bytes, StoreError> {
        let reference = Reference::with_tag(self.registry.clone(), self.repository.clone(), "latest".into());
        self.login().await;
        let pull = || async {
            let layer = OciDescriptor { digest: digest.into(), ..OciDescriptor::default() };
            let mut stream = self.client.pull_blob_stream(&reference, &layer).await?.stream;
            let mut content = BytesMut::new();
            while let Some(piece) = stream.try_next().await? {
                if (content.len() + piece.len()) as u64 > largest {
                    return Err(Error::GenericError(Some(format!(
                        "{digest} is larger than {largest} bytes"
                    ))));
                }
                content.extend_from_slice(&piece);
            }
            Ok(content.freeze())
        };
        self.within("read a part", pull).await
    }

    async fn push_blob(&self, content: &Bytes, digest: &str) -> Result<(), StoreError> {
        let reference = Reference::with_tag(self.registry.clone(), self.repository.clone(), "latest".into());
        self.login().await;
        let push = || async {
            if self.client.blob_exists(&reference, digest).await.unwrap_or(false) {
                return Ok(());
            }
            self.client.push_blob(&reference, content.clone(), digest).await.map(drop)
        };
        self.within("take a part", push).await
    }

    fn damaged(&self, name: &Name, problem: &str) -> StoreError {
        StoreError::Damaged { place: self.place.clone(), name: name.as_str().into(), problem: problem.into() }
    }

    fn missing(&self, name: &Name) -> StoreError {
        StoreError::NotFound { place: self.place.clone(), name: name.as_str().into() }
    }

    /// A registry forgets what no manifest names any more, when its own garbage collection runs.
    async fn delete_manifest(&self, digest: &str) -> Result<(), StoreError> {
        let name: Name = "latest".parse()?;
        let reference = self.reference(&name);
        let url = format!("{}://{}/v2/{}/manifests/{digest}", self.scheme, self.registry, self.repository);
        let remove = || async {
            let token = self.client.auth(&reference, &self.auth, RegistryOperation::Push).await?;
            let request = self.http.delete(&url);
            let request = match (&self.auth, token) {
                (_, Some(token)) => request.bearer_auth(token),
                (RegistryAuth::Basic(user, password), None) => request.basic_auth(user, Some(password)),
                _ => request,
            };
            let answer = request.send().await?;
            Ok(answer.status().as_u16())
        };
        let place = self.place.clone();
        match self.within("delete", remove).await? {
            200..=299 | 404 => Ok(()),
            401 | 403 => {
                Err(StoreError::Unauthorized { place, source: "it does not let us delete manifests".into() })
            }
            405 => Err(StoreError::Unable {
                place,
                action: "delete",
                remedy: "allow it in the registry (docker-registry: storage.delete.enabled)",
            }),
            code => Err(StoreError::Failed {
                place,
                action: "delete",
                source: format!("it answers {code}").into(),
            }),
        }
    }
}

#[async_trait]
impl Shelf for Registry {
    async fn put(&self, _at: &Slot<'_>, part: &Part, content: Bytes) -> Result<(), StoreError> {
        self.push_blob(&content, &digest(part)).await
    }

    async fn finish(&self, label: &Label) -> Result<(), StoreError> {
        if self.manifest(&label.name).await?.is_some() {
            return Err(StoreError::Occupied { place: self.place.clone(), name: label.name.as_str().into() });
        }
        let failed = |e: serde_json::Error| StoreError::Failed {
            place: self.place.clone(),
            action: "take the label",
            source: e.into(),
        };
        let text = Bytes::from(serde_json::to_vec(label).map_err(failed)?);
        let config = describe(&text);
        self.push_blob(&text, &digest(&config)).await?;
        let manifest = OciManifest::Image(OciImageManifest {
            schema_version: 2,
            media_type: Some(MANIFEST.into()),
            artifact_type: Some(ARTEFACT.into()),
            config: descriptor(LABEL, &config),
            layers: label.parts.iter().map(|part| descriptor(PART, part)).collect(),
            ..OciImageManifest::default()
        });
        let reference = self.reference(&label.name);
        self.login().await;
        let push = || async { self.client.push_manifest(&reference, &manifest).await.map(drop) };
        self.within("take the manifest", push).await
    }

    /// Parts without a manifest go by the registry's own garbage collection.
    async fn discard(&self, _name: &Name, _push: &PushId) -> Result<(), StoreError> {
        Ok(())
    }

    async fn label(&self, name: &Name) -> Result<Label, StoreError> {
        let (manifest, _) = self.manifest(name).await?.ok_or_else(|| self.missing(name))?;
        let size = u64::try_from(manifest.config.size).ok().filter(|size| *size <= LARGEST_LABEL);
        let size = size.ok_or_else(|| self.damaged(name, "its label is too large"))?;
        let text = self.blob(&manifest.config.digest, size).await?;
        if digest(&describe(&text)) != manifest.config.digest {
            return Err(self.damaged(name, "its label is not what the manifest says"));
        }
        Label::read(&text, name).map_err(|wrong| match wrong {
            Wrong::Content(problem) => self.damaged(name, &problem),
            Wrong::Format(found) => {
                StoreError::Format { place: self.place.clone(), name: name.as_str().into(), found }
            }
        })
    }

    async fn get(&self, at: &Slot<'_>, part: &Part) -> Result<Bytes, StoreError> {
        self.blob(&digest(part), part.size).await.map_err(|e| match e {
            StoreError::Failed { source, .. } => {
                self.damaged(at.name, &format!("part {} cannot be read ({source})", at.number))
            }
            e => e,
        })
    }

    async fn names(&self) -> Result<Vec<Name>, StoreError> {
        let reference = Reference::with_tag(self.registry.clone(), self.repository.clone(), "latest".into());
        let mut names = Vec::new();
        let mut last: Option<String> = None;
        loop {
            let page = || async {
                match self.client.list_tags(&reference, &self.auth, Some(PAGE), last.as_deref()).await {
                    Ok(page) => Ok(page.tags),
                    Err(e) if is_missing(&e) => Ok(Vec::new()),
                    Err(e) => Err(e),
                }
            };
            let page = self.within("list", page).await?;
            let end = page.last().cloned();
            // Some registries know no pages, and answer all of it each time.
            let is_last = page.len() != PAGE || end == last || names.len() >= MOST_TAGS;
            names.extend(page.iter().filter_map(|tag| tag.parse::<Name>().ok()));
            if is_last {
                return Ok(names);
            }
            last = end;
        }
    }

    async fn delete(&self, label: &Label) -> Result<(), StoreError> {
        let (_, digest) = self.manifest(&label.name).await?.ok_or_else(|| self.missing(&label.name))?;
        self.delete_manifest(&digest).await
    }

    async fn leftovers(&self, _age: Duration) -> Result<Vec<(Name, PushId)>, StoreError> {
        Ok(Vec::new())
    }
}

fn digest(part: &Part) -> String {
    format!("sha256:{}", part.sha256)
}

fn descriptor(media_type: &str, part: &Part) -> OciDescriptor {
    OciDescriptor {
        media_type: media_type.into(),
        digest: digest(part),
        size: i64::try_from(part.size).unwrap_or(i64::MAX),
        ..OciDescriptor::default()
    }
}

/// Whether another try may help.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::RequestError(e) => !e.is_builder() && !e.is_redirect(),
        Error::ServerError { code, .. } => matches!(code, 408 | 429 | 500 | 502..=504),
        Error::IoError(_) => true,
        _ => false,
    }
}

fn is_missing(error: &Error) -> bool {
    let codes = [OciErrorCode::ManifestUnknown, OciErrorCode::NameUnknown, OciErrorCode::NotFound];
    match error {
        Error::ImageManifestNotFoundError(_) | Error::ServerError { code: 404, .. } => true,
        Error::RegistryError { envelope, .. } => envelope.errors.iter().any(|e| codes.contains(&e.code)),
        _ => false,
    }
}
