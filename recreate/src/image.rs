//! Which image a container is made from, and the image's way from host to host.

use std::io::{self, Read, Write};

use fastmig_engine::Key;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::archive::{self, with_tag};
use crate::call::Call;
use crate::describe::{one, Described};
use crate::error::Error;
use crate::fields::{answer, MAKE_IT};
use crate::recipe::{Client, ImageIdentity, Recipe};
use crate::Recreator;

/// podman's word for images that it got from docker: OCI's archive would change their configuration.
const DOCKERS: &str = "application/vnd.docker.distribution.manifest.v2+json";

impl Recreator {
    /// Whether this host has the recipe's image.
    ///
    /// # Errors
    /// When another image has its name here, or the client cannot be asked.
    pub fn has_image(&self, recipe: &Recipe) -> Result<bool, Error> {
        recipe.validate()?;
        let Some(here) = self.local_image(recipe)? else { return Ok(false) };
        if here.same_root(&recipe.image) {
            return Ok(true);
        }
        let (name, there) = (recipe.image.name.clone(), recipe.image.digest.clone());
        Err(Error::OtherImage { name, here: here.digest, there })
    }

    /// Whether a container of this host has the same root file system below it as the recipe's.
    ///
    /// # Errors
    /// When its client cannot be asked.
    pub fn same_image(&self, recipe: &Recipe, container: &Key) -> Result<bool, Error> {
        Ok(self.identity(&self.ask(container)?)?.same_root(&recipe.image))
    }

    /// Writes the recipe's image, as its client does; nothing of it is on disk meanwhile.
    ///
    /// # Errors
    /// When the client fails or takes too long, or `out` cannot be written.
    pub fn export_image(&self, recipe: &Recipe, out: &mut dyn Write) -> Result<u64, Error> {
        recipe.validate()?;
        let mut sent = 0;
        self.exporter(recipe)?.drain(|stream| {
            sent = io::copy(stream, out).map_err(|source| Error::Stream { source })?;
            Ok(())
        })?;
        Ok(sent)
    }

    /// Gives the recipe's image, as [`Recreator::export_image`] wrote it, to its client here. It stays when the migration
    /// comes to nothing.
    ///
    /// # Errors
    /// When the archive holds anything else or is too large, or the client fails or takes too long.
    pub fn import_image(&self, recipe: &Recipe, input: &mut dyn Read) -> Result<(), Error> {
        // Fails where another image would lose its name.
        if self.has_image(recipe)? {
            return Ok(());
        }
        let limit = self.limits.image_bytes;
        self.importer(recipe)?.feed(|client| archive::pass(input, client, &recipe.image.name, limit))?;
        match self.local_image(recipe)? {
            Some(here) if here.same_root(&recipe.image) => Ok(()),
            Some(here) => Err(Error::BadArchive { why: format!("it holds {} instead", here.digest) }),
            None => Err(Error::BadArchive { why: format!("it does not hold {}", recipe.image.name) }),
        }
    }

    /// The image of a container.
    pub(crate) fn identity(&self, described: &Described) -> Result<ImageIdentity, Error> {
        let Described { client, namespace, container } = described;
        if !client.has_namespaces() {
            let id = container["Image"].as_str().unwrap_or_default();
            let asked = container["ImageName"].as_str().or_else(|| container["Config"]["Image"].as_str());
            return inspected(*client, &self.inspect_image(*client, id)?, asked.unwrap_or_default());
        }
        let name = container["Image"].as_str().unwrap_or_default();
        let image = self.stored(namespace, name)?.ok_or_else(|| Error::Missing {
            what: format!("image {name:?} is no longer in containerd's namespace {namespace}"),
            remedy: "pull it again".into(),
        })?;
        self.check_snapshot(namespace, container, &image)?;
        Ok(image)
    }

    /// The health check that a container has when nobody asks for one.
    pub(crate) fn health_check_of_image(&self, described: &Described) -> Result<Value, Error> {
        let id = described.container["Image"].as_str().unwrap_or_default();
        let image = self.inspect_image(described.client, id)?;
        let outside = &image["Config"]["Healthcheck"];
        Ok(if outside.is_null() { image["Healthcheck"].clone() } else { outside.clone() })
    }

    fn local_image(&self, recipe: &Recipe) -> Result<Option<ImageIdentity>, Error> {
        let name = &recipe.image.name;
        if recipe.client.has_namespaces() {
            return self.stored(&recipe.namespace, name);
        }
        match self.inspect_image(recipe.client, name) {
            Ok(image) => inspected(recipe.client, &image, name).map(Some),
            // The daemon may be dead, too; whoever asks next is told.
            Err(Error::Failed { message, .. }) if is_absent(&message) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn inspect_image(&self, client: Client, name: &str) -> Result<Value, Error> {
        one(client, &self.client(client, "").args(["image", "inspect", name]).output()?)
    }

    /// An image in containerd's store, with what its own documents say of it.
    fn stored(&self, namespace: &str, name: &str) -> Result<Option<ImageIdentity>, Error> {
        let Some(config) = self.stored_config(namespace, name)? else { return Ok(None) };
        let layers = texts(&config.content["rootfs"]["diff_ids"]);
        Ok(Some(ImageIdentity { name: name.into(), digest: config.digest, layers }))
    }

    /// An image's entry point, which ctr puts before every command.
    pub(crate) fn entry_point(&self, namespace: &str, name: &str) -> Result<Vec<String>, Error> {
        let config = self.stored_config(namespace, name)?;
        Ok(config.map(|config| texts(&config.content["config"]["Entrypoint"])).unwrap_or_default())
    }

    fn stored_config(&self, namespace: &str, name: &str) -> Result<Option<Config>, Error> {
        let list = self.ctr(namespace).args(["images", "list"]).output()?;
        let row = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let Some(row) = row.into_iter().find(|row| row.first() == Some(&name)) else { return Ok(None) };
        let digest = row.into_iter().find(|word| word.starts_with("sha256:"));
        let digest = digest.ok_or_else(|| answer("ctr", name, "its list has no digest"))?;
        let mut manifest = self.content(namespace, digest)?;
        if let Some(manifests) = manifest["manifests"].as_array() {
            let fits = manifests.iter().find(|manifest| is_this_machine(&manifest["platform"]));
            let digest = fits.and_then(|manifest| manifest["digest"].as_str());
            let digest = digest.ok_or_else(|| answer("containerd", name, "it is for other machines"))?;
            manifest = self.content(namespace, digest)?;
        }
        let digest = manifest["config"]["digest"].as_str();
        let digest = digest.ok_or_else(|| answer("containerd", name, "its manifest has no configuration"))?;
        Ok(Some(Config { content: self.content(namespace, digest)?, digest: digest.to_owned() }))
    }

    fn content(&self, namespace: &str, digest: &str) -> Result<Value, Error> {
        one(Client::Ctr, &self.ctr(namespace).args(["content", "get", digest]).output()?)
    }

    /// Whether the container was made from the image that has the name now: its snapshot stands on the image's layers.
    fn check_snapshot(&self, namespace: &str, container: &Value, image: &ImageIdentity) -> Result<(), Error> {
        let text = |key: &str| container[key].as_str().unwrap_or_default();
        let snapshotter = format!("--snapshotter={}", text("Snapshotter"));
        let call = self.ctr(namespace).args(["snapshots", &snapshotter, "info", text("SnapshotKey")]);
        let snapshot = one(Client::Ctr, &call.output()?)?;
        match snapshot["Parent"].as_str() == Some(&chain(&image.layers)) {
            true => Ok(()),
            false => Err(Error::Unsupported {
                setting: format!("an older image than {} is now", image.name),
                remedy: MAKE_IT,
            }),
        }
    }

    fn exporter(&self, recipe: &Recipe) -> Result<Call, Error> {
        let name = recipe.image.name.as_str();
        let call = self.patient(recipe);
        Ok(match recipe.client {
            Client::Docker => call.args(["save", name]),
            Client::Podman => {
                let image = self.inspect_image(recipe.client, name)?;
                let format = if image["ManifestType"] == DOCKERS { "docker" } else { "oci" };
                call.args(["save", "--quiet", &format!("--format={format}-archive"), name])
            }
            Client::Nerdctl | Client::Ctr => {
                call.args(["images", "export"]).args(self.local(recipe, "export")?).args(["-", name])
            }
        })
    }

    fn importer(&self, recipe: &Recipe) -> Result<Call, Error> {
        let call = self.patient(recipe);
        Ok(match recipe.client {
            Client::Docker | Client::Podman => call.args(["load", "--quiet"]),
            Client::Nerdctl | Client::Ctr => {
                call.args(["images", "import"]).args(self.local(recipe, "import")?).args(["-"])
            }
        })
    }

    /// A call that has the time that an image takes. nerdctl's images are ctr's.
    fn patient(&self, recipe: &Recipe) -> Call {
        let client = if recipe.client == Client::Nerdctl { Client::Ctr } else { recipe.client };
        let patient =
            Self { limits: crate::Limits { command: self.limits.image, ..self.limits }, ..self.clone() };
        patient.client(client, &recipe.namespace)
    }

    /// containerd 2.1's own transfer service truncates archives now and then, and ctr 1.6 knows no other way than its own.
    fn local(&self, recipe: &Recipe, verb: &str) -> Result<Option<&'static str>, Error> {
        let help = self.ctr(&recipe.namespace).args(["images", verb, "--help"]).output()?;
        Ok(help.contains("--local").then_some("--local"))
    }
}

/// An image's own description of itself.
struct Config {
    digest: String,
    content: Value,
}

/// What docker and podman say of an image; `asked` is the name that the container's user gave.
fn inspected(client: Client, image: &Value, asked: &str) -> Result<ImageIdentity, Error> {
    let id = image["Id"].as_str().unwrap_or_default();
    let digest = format!("sha256:{}", id.trim_start_matches("sha256:"));
    let layers = texts(&image["RootFS"]["Layers"]);
    if layers.is_empty() {
        return Err(answer(client.program(), asked, "the image has no layers"));
    }
    // A name that has moved on to another image would bring that one.
    let named = texts(&image["RepoTags"]).contains(&with_tag(asked));
    Ok(ImageIdentity { name: if named { asked.into() } else { digest.clone() }, digest, layers })
}

fn is_absent(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["no such image", "image not known", "no such object"].iter().any(|text| message.contains(text))
}

fn is_this_machine(platform: &Value) -> bool {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    platform["os"] == "linux" && platform["architecture"] == architecture
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The name of the snapshot that stands on all of these layers, as OCI defines it.
fn chain(layers: &[String]) -> String {
    let mut layers = layers.iter();
    let first = layers.next().cloned().unwrap_or_default();
    layers.fold(first, |below, layer| {
        format!("sha256:{}", hex::encode(Sha256::digest(format!("{below} {layer}"))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_name_that_moved_on_is_not_taken() {
        let image = json!({
            "Id": format!("sha256:{}", "a".repeat(64)),
            "RepoTags": ["redis:latest"],
            "RootFS": { "Layers": ["sha256:1"] },
        });
        assert_eq!(inspected(Client::Docker, &image, "redis").unwrap().name, "redis");
        assert!(inspected(Client::Docker, &image, "redis:7").unwrap().name.starts_with("sha256:a"));
    }

    #[test]
    fn snapshots_are_named_after_all_layers_below() {
        let one = "sha256:f79928e03b5c305a924dca0e323aa3fe6fb87ea4354458a695c4335c21d47ae0".to_owned();
        assert_eq!(chain(std::slice::from_ref(&one)), one);
        // The redis image of the test hosts, as its containerd labels it.
        let two = [
            "sha256:a3d62e01df1dc5f2d8fe243a4c5d57cb006266e9c679b89a02c2511a389dadea",
            "sha256:20e823687e4fef4d4177e75c1cffa213d94959ea1b217a7233112bc68e9c3c86",
        ];
        assert_eq!(
            chain(&two.map(str::to_owned)),
            "sha256:c6ccdc399f283cb31d82bdb158f82e0ad784579df6488ef0f8126e69ab4bb636"
        );
    }
}
