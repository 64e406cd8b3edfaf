//! What travels: how to make a container once more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::settings::{stand_in, Mount, Settings};
use crate::valid;

/// The version of recipes that this program writes and reads.
pub const FORMAT: u32 = 1;

/// The longest recipe that is read, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// How to make a container once more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// [`FORMAT`].
    pub format: u32,
    /// Whose container it is.
    pub client: Client,
    /// containerd's namespace; empty where the client has none.
    pub namespace: String,
    /// What the client calls it.
    pub name: String,
    /// What it is made from.
    pub image: ImageIdentity,
    /// How it reaches FastMig.
    pub runtime: Runtime,
    /// All that its user asked for.
    pub settings: Settings,
}

/// A program that makes containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Client {
    /// docker.
    Docker,
    /// podman, root's.
    Podman,
    /// nerdctl.
    Nerdctl,
    /// ctr, and programs that make what ctr can make.
    Ctr,
}

impl Client {
    /// Its program.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Nerdctl => "nerdctl",
            Self::Ctr => "ctr",
        }
    }

    /// Whether its containers and images are in one of containerd's namespaces.
    #[must_use]
    pub fn has_namespaces(self) -> bool {
        matches!(self, Self::Nerdctl | Self::Ctr)
    }
}

/// How a container reaches FastMig. Never a path: which program that is, each host knows itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Runtime {
    /// By the OCI runtime `fastmig`.
    Wrapper,
    /// By containerd's shim `io.containerd.fastmig.v1`.
    Shim,
    /// By a name in docker's settings.
    Named(String),
}

/// Which image a container is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageIdentity {
    /// The name by which its client finds it; the digest where it has no name.
    pub name: String,
    /// That of its configuration: `sha256:` and 64 digits.
    pub digest: String,
    /// Those of its layers' contents, from the lowest up. They decide what its root file system is.
    pub layers: Vec<String>,
}

impl ImageIdentity {
    /// Whether both have the same root file system.
    #[must_use]
    pub fn same_root(&self, other: &Self) -> bool {
        !self.layers.is_empty() && self.layers == other.layers
    }
}

impl Recipe {
    /// Reads one that came from a peer.
    ///
    /// # Errors
    /// When it is too long, of another version, not understood to the last field, or against the rules.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        if text.len() > MAX_BYTES {
            return Err(Error::Unreadable { message: format!("it has {} bytes", text.len()) });
        }
        let recipe: Self =
            serde_json::from_slice(text).map_err(|e| Error::Unreadable { message: e.to_string() })?;
        recipe.validate()?;
        Ok(recipe)
    }

    /// As it travels.
    ///
    /// # Errors
    /// When it is longer than what is read, or against the rules.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        self.validate()?;
        let text = serde_json::to_vec(self).map_err(|e| Error::Unreadable { message: e.to_string() })?;
        match text.len() > MAX_BYTES {
            true => Err(Error::Unreadable { message: format!("it has {} bytes", text.len()) }),
            false => Ok(text),
        }
    }

    /// Which image it needs.
    #[must_use]
    pub fn image(&self) -> &ImageIdentity {
        &self.image
    }

    /// Says other paths for directories of the source host, as the migration's user asked: the longest entry that fits
    /// counts. The destination's own settings decide about the result.
    #[must_use]
    pub fn with_binds(mut self, binds: &BTreeMap<PathBuf, PathBuf>) -> Self {
        for mount in &mut self.settings.mounts {
            if let Mount::Bind { source, .. } = mount {
                let there = stand_in(binds, Path::new(source.as_str())).map(|(_, there)| there);
                if let Some(there) = there.as_deref().and_then(Path::to_str) {
                    there.clone_into(source);
                }
            }
        }
        self
    }

    /// Fails when an honest peer would not have written it. All that use a recipe ask.
    ///
    /// # Errors
    /// Names the first field that is against the rules.
    pub fn validate(&self) -> Result<(), Error> {
        if self.format != FORMAT {
            let message = format!("it has format {}, and this program knows {FORMAT}", self.format);
            return Err(Error::Unreadable { message });
        }
        valid::recipe(self)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn sample() -> Recipe {
        Recipe {
            format: FORMAT,
            client: Client::Docker,
            namespace: String::new(),
            name: "web".into(),
            image: ImageIdentity {
                name: "redis:7".into(),
                digest: format!("sha256:{}", "0".repeat(64)),
                layers: vec![format!("sha256:{}", "1".repeat(64))],
            },
            runtime: Runtime::Named("fastmig".into()),
            settings: Settings { command: vec!["redis-server".into()], ..Settings::default() },
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let recipe = sample();
        assert_eq!(Recipe::parse(&recipe.to_bytes().unwrap()).unwrap(), recipe);
    }

    #[test]
    fn the_user_may_say_other_paths() {
        let bind = |source: &str| {
            let mut recipe = sample();
            let target = "/x".into();
            recipe.settings.mounts = vec![Mount::Bind { source: source.into(), target, read_only: false }];
            recipe
        };
        let binds = [("/srv".into(), "/data".into()), ("/srv/web".into(), "/web".into())].into();
        assert_eq!(bind("/srv/web/a").with_binds(&binds), bind("/web/a"));
        assert_eq!(bind("/srv").with_binds(&binds), bind("/data"));
        assert_eq!(bind("/srvx").with_binds(&binds), bind("/srvx"));
    }

    #[test]
    fn unknown_fields_other_formats_and_long_texts_are_refused() {
        let mut value = serde_json::to_value(sample()).unwrap();
        value["settings"]["devices"] = "all".into();
        let error = Recipe::parse(value.to_string().as_bytes()).unwrap_err().to_string();
        assert!(error.contains("devices"), "{error}");
        let text = serde_json::to_vec(&Recipe { format: 2, ..sample() }).unwrap();
        assert!(Recipe::parse(&text).unwrap_err().to_string().contains("format 2"));
        assert!(matches!(Recipe::parse(&vec![b' '; MAX_BYTES + 1]), Err(Error::Unreadable { .. })));
    }

    proptest! {
        /// Whatever becomes of a recipe: it is refused, or reads the same once more.
        #[test]
        fn no_changed_recipe_is_too_strange(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
            let mut text = sample().to_bytes().unwrap();
            for (at, byte) in changes {
                let at = at.index(text.len());
                text[at] = byte;
            }
            if let Ok(read) = Recipe::parse(&text) {
                prop_assert_eq!(Recipe::parse(&read.to_bytes().unwrap()).unwrap(), read);
            }
        }
    }
}
