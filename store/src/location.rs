//! Where a checkpoint is, or is to be: a place, and its name there.
//!
//! | text | place | name |
//! |---|---|---|
//! | `/DIR/NAME`, `dir:/DIR/NAME` | a directory | the last part; none when the text ends with a slash |
//! | `s3://BUCKET/PREFIX/NAME` | a bucket, or a part of it | the same |
//! | `oci://REGISTRY/REPOSITORY:NAME` | a repository | the tag, if there is one |
//! | `store:NAME` | the one in the settings | what follows, if anything does |

use std::fmt;
use std::path::PathBuf;

use crate::{Name, StoreError};

/// A place for checkpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A directory of this host.
    Directory(PathBuf),
    /// A bucket of an S3-compatible object store, or what begins with a prefix in it.
    Bucket {
        /// The bucket.
        bucket: String,
        /// What the keys begin with; without a slash at either end, and empty for all of the bucket.
        prefix: String,
    },
    /// A repository of a registry.
    Repository {
        /// The registry's host, with its port if it has one.
        registry: String,
        /// The repository.
        repository: String,
    },
}

/// A place, and the name of a checkpoint there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The place.
    pub place: Place,
    /// The checkpoint; nothing when the place alone was named.
    pub name: Option<Name>,
}

impl Location {
    /// Reads what somebody gave; `home` is the place in the settings, which `store:` means.
    ///
    /// # Errors
    /// When it is none of the forms above, or has an impossible name.
    pub fn parse(text: &str, home: &str) -> Result<Self, StoreError> {
        if let Some(name) = text.strip_prefix("store:") {
            if home.is_empty() {
                return Err(StoreError::Settings {
                    problem: "store: means the place that the settings name, and they name none".into(),
                    remedy: "set store.location in /etc/fastmig/config.toml".into(),
                });
            }
            let name = if name.is_empty() { None } else { Some(name.parse()?) };
            return Ok(Self { place: Place::parse(home)?, name });
        }
        if let Some(rest) = text.strip_prefix("oci://") {
            let at = rest.rfind(':').filter(|at| !rest[*at..].contains('/') && rest[..*at].contains('/'));
            let (place, name) = at.map_or((rest, None), |at| (&rest[..at], Some(&rest[at + 1..])));
            let name = name.map(str::parse).transpose()?;
            return Ok(Self { place: Place::parse(&format!("oci://{place}"))?, name });
        }
        let whole = Place::parse(text)?;
        let is_whole =
            text.ends_with('/') || matches!(&whole, Place::Bucket { prefix, .. } if prefix.is_empty());
        if is_whole {
            return Ok(Self { place: whole, name: None });
        }
        let (place, name) = text.rsplit_once('/').unwrap_or(("", text));
        let place = if place.is_empty() || place == "dir:" { "/" } else { place };
        Ok(Self { place: Place::parse(place)?, name: Some(name.parse()?) })
    }
}

impl Place {
    /// Reads a place: all of the text, whether it ends with a slash or not.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let refuse = |problem| Err(StoreError::Location { text: text.into(), problem });
        if text.contains(['\0', '\n']) || text.split('/').any(|part| part == "..") {
            return refuse("it has a part that leads elsewhere");
        }
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let prefix: Vec<&str> = prefix.split('/').filter(|part| !part.is_empty()).collect();
            if bucket.is_empty() || !bucket.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c)) {
                return refuse("it names no bucket");
            }
            return Ok(Self::Bucket { bucket: bucket.into(), prefix: prefix.join("/") });
        }
        if let Some(rest) = text.strip_prefix("oci://") {
            let Some((registry, repository)) = rest.trim_end_matches('/').split_once('/') else {
                return refuse("it names no repository");
            };
            let is_good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c);
            if registry.is_empty() || repository.is_empty() || !repository.chars().all(is_good) {
                return refuse(
                    "a repository has lower-case letters, digits, dots, dashes, underscores and slashes",
                );
            }
            return Ok(Self::Repository { registry: registry.into(), repository: repository.into() });
        }
        let path = text.strip_prefix("dir:").unwrap_or(text);
        if !path.starts_with('/') {
            return refuse("a directory begins with /");
        }
        // Equal for equal directories, with a slash at the end or without.
        Ok(Self::Directory(PathBuf::from(path).components().collect()))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Bucket { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::Bucket { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Repository { registry, repository } => write!(f, "oci://{registry}/{repository}"),
        }
    }
}

impl Place {
    /// The text that names a checkpoint in this place.
    #[must_use]
    pub fn with(&self, name: &Name) -> String {
        match self {
            Self::Repository { .. } => format!("{self}:{name}"),
            _ => format!("{}/{name}", self.to_string().trim_end_matches('/')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (String, Option<String>) {
        let location = Location::parse(text, "s3://home/x").unwrap();
        (location.place.to_string(), location.name.map(String::from))
    }

    #[test]
    fn every_form_is_read() {
        for (text, place, name) in [
            ("/var/backup/web-1", "/var/backup", Some("web-1")),
            ("dir:/var/backup/", "/var/backup", None),
            ("/web", "/", Some("web")),
            ("dir:/web", "/", Some("web")),
            ("s3://b", "s3://b", None),
            ("s3://b/", "s3://b", None),
            ("s3://b/web", "s3://b", Some("web")),
            ("s3://b/p/q/web", "s3://b/p/q", Some("web")),
            ("s3://b/p//q/", "s3://b/p/q", None),
            ("oci://localhost:5000/ckpt", "oci://localhost:5000/ckpt", None),
            ("oci://localhost:5000/a/b:web", "oci://localhost:5000/a/b", Some("web")),
            ("oci://r.example/a:web-1", "oci://r.example/a", Some("web-1")),
            ("store:", "s3://home/x", None),
            ("store:web", "s3://home/x", Some("web")),
        ] {
            assert_eq!(parse(text), (place.into(), name.map(str::to_owned)), "{text}");
        }
    }

    #[test]
    fn what_leads_elsewhere_or_is_no_place_is_refused() {
        for text in [
            "",
            "web",
            "backup/web",
            "/var/../etc/x",
            "s3://",
            "s3:///x",
            "s3://b/../x",
            "oci://r",
            "oci://r/UP:x",
            "oci://r/a:",
            "oci://r/a:-x",
            "/var/.hidden",
            "store:../x",
            "ftp://x/y",
            "/a\n/b",
        ] {
            assert!(Location::parse(text, "/home").is_err(), "{text:?}");
        }
        let error = Location::parse("store:x", "").unwrap_err().to_string();
        assert!(error.contains("store.location"), "{error}");
    }

    #[test]
    fn a_name_is_put_back_where_it_came_from() {
        for text in ["/var/backup/web-1", "/web", "s3://b/web", "s3://b/p/web", "oci://h:5000/a/b:web"] {
            let location = Location::parse(text, "").unwrap();
            assert_eq!(location.place.with(&location.name.unwrap()), text);
        }
    }
}
