//! Which line of the file each setting comes from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::error::line_of;
use super::ConfigError;

/// The settings that a file has, by their dotted names; all others have their built-in values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    path: PathBuf,
    lines: BTreeMap<String, usize>,
}

impl Sources {
    /// There is no such file.
    pub(super) fn none(path: &Path) -> Self {
        Self { path: path.into(), lines: BTreeMap::new() }
    }

    pub(super) fn read(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let table = DeTable::parse(text).map_err(|e| ConfigError::from_toml(path, text, &e))?;
        let mut sources = Self::none(path);
        sources.add("", table.get_ref(), text);
        Ok(sources)
    }

    fn add(&mut self, prefix: &str, table: &DeTable<'_>, text: &str) {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            match value.get_ref() {
                DeValue::Table(inner) => self.add(&format!("{name}."), inner, text),
                _ => drop(self.lines.insert(name, line_of(text, key.span().start))),
            }
        }
    }

    /// The file, whether it exists or not.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The line, counted from 1, that sets `key`, such as `limits.runc`; nothing when its value is built in.
    #[must_use]
    pub fn line(&self, key: &str) -> Option<usize> {
        self.lines.get(key).copied()
    }

    pub(super) fn error(&self, key: &str, cause: String, remedy: String) -> ConfigError {
        ConfigError { path: self.path.clone(), line: self.line(key), cause, remedy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_setting_has_its_line() {
        let text = "# settings\nlog_dir = \"/l\"\nlimits.runc = 1\ndefaults = { tcp = \"keep\" }\n\n[checkpoint]\nghost_limit = 3\n";
        let sources = Sources::read(text, Path::new("/c")).unwrap();
        let lines = ["log_dir", "limits.runc", "defaults.tcp", "checkpoint.ghost_limit", "limits.init"]
            .map(|key| sources.line(key));
        assert_eq!(lines, [Some(2), Some(3), Some(4), Some(7), None]);
    }
}
