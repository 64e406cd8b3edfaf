//! Debian's docker-registry on a host's own address, with the images of [`super::images`] in it.
//!
//! The registry's storage is written as it lays it out itself, once, into the cache; it only reads it.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{copy, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{json, Value};
use sha2::{Digest, Sha256};

use super::images::{images, Image};
use crate::framework::bundle::copy_tree;
use crate::framework::cache::Cache;
use crate::framework::process::wait_until;
use crate::framework::recipe::Recipe;
use crate::framework::{image, rootfs, Host};

/// Where it answers on each host.
pub(super) const ADDRESS: &str = "localhost:5000";

/// Changes when the way of writing the storage does.
const REVISION: u32 = 1;

const PROGRAM: &str = "/usr/local/bin/docker-registry";
const CONFIG: &str = "/etc/docker-registry.yml";
const LOG: &str = "/var/log/docker-registry.log";
const START_LIMIT: Duration = Duration::from_secs(20);

static PACKAGE: Recipe = Recipe {
    suite: "trixie",
    variant: "extract",
    packages: Cow::Borrowed(&["docker-registry"]),
    options: &[],
};

/// Starts the registry on a host.
pub(super) fn start(host: &Host) -> Result<()> {
    let package = rootfs::root(&host.cache, "docker-registry", &PACKAGE)?;
    copy_tree(&package.join("usr/bin/docker-registry"), &host.outside(PROGRAM))?;
    host.write_file(CONFIG, config(&host.share(&storage(&host.cache)?)?).to_string())?;
    host.sh(&format!("setsid {PROGRAM} serve {CONFIG} >>{LOG} 2>&1 </dev/null &")).ok()?;
    let answers = || host.cmd(["curl", "-sf", &format!("http://{ADDRESS}/v2/")]).ok().is_ok();
    wait_until(START_LIMIT, answers).with_context(|| {
        let log = host.cmd(["tail", "-n", "5", LOG]).ok().unwrap_or_default();
        format!("the registry does not answer on host {}; its log ends:\n{log}", host.name())
    })
}

/// YAML takes JSON for what it is.
fn config(storage: &str) -> Value {
    json!({
        "version": "0.1",
        "http": { "addr": ADDRESS },
        "storage": {
            "filesystem": { "rootdirectory": storage },
            "maintenance": { "readonly": { "enabled": true }, "uploadpurging": { "enabled": false } },
        },
    })
}

/// The storage in the cache.
fn storage(cache: &Cache) -> Result<PathBuf> {
    let images = images();
    let archives =
        images.iter().map(|image| image::archive_of(cache, image.content)).collect::<Result<Vec<_>>>()?;
    let mut recipe = format!("{REVISION}");
    for (image, archive) in images.iter().zip(&archives) {
        recipe.push_str(&format!("\n{} {} {}", image.name, archive.display(), image.config));
    }
    cache.get("registries", "critest", &recipe, |target| {
        let storage = Storage { root: target.join("docker/registry/v2") };
        images.iter().zip(&archives).try_for_each(|(image, archive)| storage.add(image, archive))
    })
}

/// The registry's directory: blobs by their digest, and links to them by name.
struct Storage {
    root: PathBuf,
}

impl Storage {
    fn add(&self, image: &Image, archive: &Path) -> Result<()> {
        let mut manifest = self.unpack(archive)?;
        let mut config: Value =
            serde_json::from_slice(&fs::read(self.blob(digest_of(&manifest["config"])?))?)?;
        for (key, value) in image.config.as_object().context("a configuration that is no object")? {
            config["config"][key] = value.clone();
        }
        let config = serde_json::to_vec(&config)?;
        manifest["config"]["digest"] = json!(self.write_blob(&config)?);
        manifest["config"]["size"] = json!(config.len());
        let digest = self.write_blob(&serde_json::to_vec(&manifest)?)?;
        self.link(image.name, &manifest, &digest)
    }

    /// Takes the blobs out of an archive in the OCI layout, and answers its manifest.
    fn unpack(&self, archive: &Path) -> Result<Value> {
        let file = File::open(archive).with_context(|| format!("cannot read {}", archive.display()))?;
        let mut index = Value::Null;
        for entry in tar::Archive::new(file).entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            if let Some(hash) = path.to_str().and_then(|path| path.strip_prefix("blobs/sha256/")) {
                self.write_once(hash, &mut entry)?;
            } else if path == Path::new("index.json") {
                index = serde_json::from_reader(entry)?;
            }
        }
        let manifest = self.blob(digest_of(&index["manifests"][0])?);
        Ok(serde_json::from_slice(&fs::read(manifest)?)?)
    }

    fn write_blob(&self, content: &[u8]) -> Result<String> {
        let hash = hex::encode(Sha256::digest(content));
        self.write_once(&hash, &mut &*content)?;
        Ok(format!("sha256:{hash}"))
    }

    fn write_once(&self, hash: &str, content: &mut impl Read) -> Result<()> {
        let path = self.blob(hash);
        if !path.exists() {
            fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
            copy(content, &mut File::create(&path)?)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    fn blob(&self, hash: &str) -> PathBuf {
        self.root.join("blobs/sha256").join(&hash[..2]).join(hash).join("data")
    }

    /// Makes the blobs of an image reachable under its name.
    fn link(&self, name: &str, manifest: &Value, digest: &str) -> Result<()> {
        let (repository, tag) = name.split_once(':').context("an image without a tag")?;
        let repository = self.root.join("repositories").join(repository);
        let layers = manifest["layers"].as_array().context("a manifest without layers")?;
        for descriptor in layers.iter().chain([&manifest["config"]]) {
            let hash = digest_of(descriptor)?;
            write_link(&repository.join("_layers/sha256").join(hash), &format!("sha256:{hash}"))?;
        }
        let hash = digest.trim_start_matches("sha256:");
        let manifests = repository.join("_manifests");
        let tag = manifests.join("tags").join(tag);
        for dir in [
            manifests.join("revisions/sha256").join(hash),
            tag.join("index/sha256").join(hash),
            tag.join("current"),
        ] {
            write_link(&dir, digest)?;
        }
        Ok(())
    }
}

fn write_link(dir: &Path, digest: &str) -> Result<()> {
    fs::create_dir_all(dir)?;
    Ok(fs::write(dir.join("link"), digest)?)
}

/// The hexadecimal part of a descriptor's digest.
fn digest_of(descriptor: &Value) -> Result<&str> {
    let digest = descriptor["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:"));
    digest.with_context(|| format!("no digest in {descriptor}"))
}
