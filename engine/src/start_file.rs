//! Start options: how an application comes up the next time, as its operator has said since the container was made.
//!
//! A small file for each container, where a reboot finds it again: `STATE_DIR/start/NAMESPACE/ID.toml`. It is read at each
//! start: the container's, `fastmig run`, and those of a policy. What it leaves out is as the container's creator has it.
//!
//! ```toml
//! version = 1
//! mode = "restore"            # run, standby
//! checkpoint = "latest"       # a name of the daemon's, or a path
//! arguments = ["--verbose"]   # after the command's own
//! unset = ["DEBUG"]
//!
//! [environment]
//! LEVEL = "3"
//! ```

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fastmig_control::{Change, MAX_CHANGES};
use fastmig_policy::Wanted;
use serde::{Deserialize, Serialize};

use crate::config::ConfigError;
use crate::files::replace;
use crate::state::Key;
use crate::{Config, Error};

/// The version of the file that this one reads and writes.
const VERSION: i64 = 1;

/// A file is not longer than this.
const MAX_BYTES: u64 = 1 << 20;

/// How the application comes up when its container starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartAs {
    /// From scratch.
    Run,
    /// From a checkpoint.
    Restore,
    /// Not yet.
    Standby,
}

/// What an operator has said about a container's next starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StartFile {
    /// Of the file.
    pub version: i64,
    /// How the application comes up when the container starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<StartAs>,
    /// With the mode `restore`: `latest`, the name of one of the daemon's checkpoints, or a path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// Arguments after the command's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// Variables that it does not get.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unset: Vec<String>,
    /// Variables that it gets.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
}

/// Where the container's file stands, or would.
#[must_use]
pub fn path(config: &Config, key: &Key) -> PathBuf {
    let directory = config.daemon.state_dir.join("start").join(key.namespace());
    directory.join(format!("{}.toml", key.id()))
}

/// What was said about a container; nothing when nothing was.
///
/// # Errors
/// When its file is wrong; the text names the line.
pub fn load(config: &Config, key: &Key) -> Result<Option<StartFile>, Error> {
    let path = path(config, key);
    match std::fs::metadata(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read", &path, e)),
        Ok(metadata) if metadata.len() > MAX_BYTES => {
            return Err(wrong(&path, None, format!("it is {} bytes long", metadata.len())).into());
        }
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
    Ok(Some(StartFile::parse(&text, &path)?))
}

/// Writes a container's file anew.
///
/// # Errors
/// When something in it is wrong, or it cannot be written.
pub fn store(config: &Config, key: &Key, file: &StartFile) -> Result<(), Error> {
    let path = path(config, key);
    let text = file.text();
    StartFile::parse(&text, &path)?;
    if let Some(directory) = path.parent() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|e| Error::io("make", directory, e))?;
    }
    replace(&path, text.as_bytes()).map_err(|e| Error::io("write", &path, e))?;
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&path, private).map_err(|e| Error::io("protect", &path, e))
}

/// Takes a container's file away: its creator decides again. Whether there was one.
///
/// # Errors
/// When it cannot be removed.
pub fn clear(config: &Config, key: &Key) -> Result<bool, Error> {
    let path = path(config, key);
    match std::fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("remove", &path, e)),
    }
}

impl StartFile {
    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        toml::to_string(&Self { version: VERSION, ..self.clone() }).unwrap_or_default()
    }

    /// Reads the text of the file `path`.
    ///
    /// # Errors
    /// When it is wrong; the text names the line.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        #[derive(Deserialize)]
        struct Version {
            version: Option<toml::Spanned<i64>>,
        }
        let parsed = |e: &toml::de::Error| {
            let words = e.message().split_whitespace().collect::<Vec<_>>().join(" ");
            wrong(path, e.span().map(|span| line_of(text, span.start)), words)
        };
        let version = toml::from_str::<Version>(text).map_err(|e| parsed(&e))?.version;
        match version {
            None => {
                return Err(wrong(path, None, format!("it has no version; this FastMig reads {VERSION}")))
            }
            Some(version) if *version.get_ref() != VERSION => {
                let cause = format!("version {} is unknown; this FastMig reads {VERSION}", version.get_ref());
                return Err(wrong(path, Some(line_of(text, version.span().start)), cause));
            }
            Some(_) => {}
        }
        let file: Self = toml::from_str(text).map_err(|e| parsed(&e))?;
        file.check().map_err(|(key, cause)| wrong(path, line_with(text, key), cause))?;
        Ok(file)
    }

    /// The key that is wrong, and why.
    fn check(&self) -> Result<(), (&str, String)> {
        match (self.mode, &self.checkpoint) {
            (Some(StartAs::Restore), None) => {
                return Err((
                    "mode",
                    "mode is restore and there is no checkpoint: give latest, a name or a path".into(),
                ));
            }
            (Some(StartAs::Restore), Some(checkpoint)) if !is_checkpoint(checkpoint) => {
                let cause = format!("{checkpoint:?} is neither latest nor a name nor an absolute path");
                return Err(("checkpoint", cause));
            }
            (mode, Some(_)) if mode != Some(StartAs::Restore) => {
                return Err(("checkpoint", "checkpoint belongs to mode = \"restore\"".into()));
            }
            _ => {}
        }
        if self.changes() > MAX_CHANGES {
            return Err(("arguments", format!("there are more than {MAX_CHANGES} arguments and variables")));
        }
        let impossible = |what: &str| format!("{what:?} is too long, or nothing that a process can be given");
        for argument in &self.arguments {
            Change::Argument(argument.as_bytes()).encode().ok_or(("arguments", impossible(argument)))?;
        }
        for name in &self.unset {
            Change::Unset(name.as_bytes()).encode().ok_or(("unset", impossible(name)))?;
        }
        for (name, value) in &self.environment {
            let sound =
                !name.contains('=') && Change::Set(variable(name, value).as_bytes()).encode().is_some();
            if !sound {
                return Err((name, impossible(name)));
            }
        }
        Ok(())
    }

    fn changes(&self) -> usize {
        self.arguments.len() + self.unset.len() + self.environment.len()
    }

    /// The changes for the init, in order.
    pub(crate) fn packets(&self) -> Vec<Vec<u8>> {
        let unset = self.unset.iter().filter_map(|name| Change::Unset(name.as_bytes()).encode());
        let set = self.environment.iter();
        let set = set.filter_map(|(name, value)| Change::Set(variable(name, value).as_bytes()).encode());
        let arguments = self.arguments.iter().filter_map(|word| Change::Argument(word.as_bytes()).encode());
        unset.chain(set).chain(arguments).collect()
    }

    /// Where the checkpoint that it names is to be found.
    pub(crate) fn wanted(&self) -> Option<Result<PathBuf, Wanted>> {
        let checkpoint = self.checkpoint.as_ref()?;
        Some(if checkpoint.starts_with('/') {
            Ok(checkpoint.into())
        } else {
            Err(Wanted::from(checkpoint.clone()))
        })
    }
}

fn variable(name: &str, value: &str) -> String {
    format!("{name}={value}")
}

fn is_checkpoint(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_name = text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(allowed);
    text.starts_with('/') || is_name
}

fn wrong(path: &Path, line: Option<usize>, cause: String) -> ConfigError {
    let remedy = "correct it, or take it away with `fastmig start-options clear`".into();
    ConfigError { path: path.into(), line, cause, remedy }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The line that sets `key`.
fn line_with(text: &str, key: &str) -> Option<usize> {
    let sets = |line: &str| {
        let rest = line.trim_start().trim_start_matches('"').strip_prefix(key);
        rest.is_some_and(|rest| rest.trim_start_matches('"').trim_start().starts_with('='))
    };
    text.lines().position(sets).map(|index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<StartFile, ConfigError> {
        StartFile::parse(text, Path::new("/start.toml"))
    }

    #[test]
    fn what_is_written_is_read_again() {
        let file = StartFile {
            mode: Some(StartAs::Restore),
            checkpoint: Some("latest".into()),
            arguments: vec!["--x".into(), String::new()],
            unset: vec!["DEBUG".into()],
            environment: [("A".to_owned(), "b=\"c\"\n".to_owned())].into(),
            ..StartFile::default()
        };
        let read = parse(&file.text()).unwrap();
        assert_eq!(read, StartFile { version: VERSION, ..file });
        assert_eq!(read.packets().len(), 4);
        assert_eq!(parse(&StartFile::default().text()).unwrap().packets().len(), 0);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, line, cause) in [
            ("version = 1\nmode = \"fast\"\n", 2, "fast"),
            ("version = 1\n\nspeed = 3\n", 3, "speed"),
            ("mode = \"run\"\nversion = 2\nshiny = 1\n", 2, "version 2 is unknown"),
            ("version = 1\nmode = \"restore\"\n", 2, "no checkpoint"),
            ("version = 1\nmode = \"restore\"\ncheckpoint = \"../x\"\n", 3, "neither latest"),
            ("version = 1\ncheckpoint = \"x\"\n", 2, "belongs to"),
            ("version = 1\narguments = [\"a\\u0000\"]\n", 2, "nothing that a process"),
            ("version = 1\nunset = [\"A=b\"]\n", 2, "nothing that a process"),
            ("version = 1\n[environment]\n\"A=\" = \"b\"\n", 3, "nothing that a process"),
            ("version = 1\nmode = \n", 2, "value"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.line, Some(line), "{text:?}: {error}");
            assert!(error.to_string().contains(cause), "{text:?}: {error}");
        }
        assert!(parse("").unwrap_err().to_string().contains("no version"));
        let many = format!("version = 1\narguments = [{}]\n", "\"x\",".repeat(MAX_CHANGES + 1));
        assert!(parse(&many).is_err());
    }

    #[test]
    fn a_file_is_private_and_goes() {
        let root = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.daemon.state_dir = root.path().join("state");
        let key = Key::new("default", "web").unwrap();
        assert_eq!(load(&config, &key).unwrap(), None);
        let file = StartFile { mode: Some(StartAs::Standby), ..StartFile::default() };
        store(&config, &key, &file).unwrap();
        assert_eq!(load(&config, &key).unwrap().unwrap().mode, Some(StartAs::Standby));
        let mode = std::fs::metadata(path(&config, &key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(clear(&config, &key).unwrap());
        assert!(!clear(&config, &key).unwrap());
        let bad = StartFile { checkpoint: Some("x".into()), ..StartFile::default() };
        assert!(store(&config, &key, &bad).is_err());
        assert_eq!(load(&config, &key).unwrap(), None);
    }
}
