//! A checkpoint at rest in a directory, with whatever in it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{json, Value};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// Where the parts of the only push lie.
const PUSH: &str = "0123456789abcdef";

/// One entry of the archive.
pub(in crate::suites::security) struct Entry {
    pub(in crate::suites::security) name: String,
    pub(in crate::suites::security) kind: EntryType,
    pub(in crate::suites::security) link: String,
    pub(in crate::suites::security) mode: u32,
    /// What it says of its size, if that is not the content's.
    pub(in crate::suites::security) size: Option<u64>,
    pub(in crate::suites::security) content: Vec<u8>,
}

impl Entry {
    /// A plain file.
    pub(in crate::suites::security) fn file(name: &str, content: impl Into<Vec<u8>>) -> Self {
        let (kind, link) = (EntryType::Regular, String::new());
        Self { name: name.into(), kind, link, mode: 0o600, size: None, content: content.into() }
    }

    /// Something else of that name.
    pub(in crate::suites::security) fn other(name: &str, kind: EntryType, link: &str) -> Self {
        Self { kind, link: link.into(), ..Self::file(name, []) }
    }
}

/// A stored checkpoint, before it is written down.
pub(in crate::suites::security) struct Stored {
    /// The manifest is the last.
    pub(in crate::suites::security) entries: Vec<Entry>,
    /// Put over what is right.
    pub(in crate::suites::security) label: Value,
    /// What follows the archive's end.
    pub(in crate::suites::security) after: Vec<u8>,
    /// Bytes more, or fewer, than the label announces.
    pub(in crate::suites::security) hidden: i64,
    /// What becomes of it on the disk: the directory of its name, and of its parts.
    pub(in crate::suites::security) spoil: Option<fn(&Path, &Path) -> Result<()>>,
}

impl Stored {
    /// The checkpoint in `good`, whole.
    pub(in crate::suites::security) fn of(good: &Path) -> Result<Self> {
        let manifest = fs::read(good.join("manifest.json"))?;
        let listed: Value = serde_json::from_slice(&manifest)?;
        let mut entries = Vec::new();
        for file in listed["files"].as_array().into_iter().flatten() {
            let name = file["name"].as_str().unwrap_or_default();
            entries.push(Entry::file(name, fs::read(good.join(name))?));
        }
        entries.push(Entry::file("manifest.json", manifest));
        Ok(Self { entries, label: json!({}), after: Vec::new(), hidden: 0, spoil: None })
    }

    /// The entry of this name.
    pub(in crate::suites::security) fn entry(&mut self, name: &str) -> &mut Entry {
        let at = self.entries.iter().position(|entry| entry.name == name).unwrap_or(0);
        &mut self.entries[at]
    }

    /// Changes what the manifest says.
    pub(in crate::suites::security) fn manifest(&mut self, change: impl FnOnce(&mut Value)) {
        let entry = self.entry("manifest.json");
        if let Ok(mut manifest) = serde_json::from_slice(&entry.content) {
            change(&mut manifest);
            entry.content = manifest.to_string().into_bytes();
        }
    }

    /// Writes it into `place`, which is new, under `name`.
    pub(in crate::suites::security) fn write(&self, place: &Path, name: &str) -> Result<PathBuf> {
        let own = |entry: &&Entry| entry.name != "manifest.json";
        let bytes: u64 =
            self.entries.iter().filter(own).map(|e| e.size.unwrap_or(e.content.len() as u64)).sum();
        let part = zstd::encode_all([self.archive()?, self.after.clone()].concat().as_slice(), 1)?;
        let mut label = json!({
            "format": 1, "name": name, "container": "hostile", "created": "2026-01-01T00:00:00Z",
            "bytes": bytes.saturating_add_signed(-self.hidden), "stored": part.len(), "encrypted": false, "push": PUSH,
            "parts": [{ "size": part.len(), "sha256": hex::encode(Sha256::digest(&part)) }],
        });
        for (field, value) in self.label.as_object().into_iter().flatten() {
            label[field] = value.clone();
        }
        let directory = place.join(name);
        let parts = directory.join(PUSH);
        fs::create_dir_all(&parts)?;
        fs::write(parts.join(PART), part)?;
        fs::write(directory.join("label.json"), label.to_string())?;
        if let Some(spoil) = self.spoil {
            spoil(&directory, &parts)?;
        }
        Ok(directory)
    }

    fn archive(&self) -> Result<Vec<u8>> {
        let mut archive = Builder::new(Vec::new());
        for entry in &self.entries {
            let mut header = Header::new_gnu();
            header.as_mut_bytes()[..entry.name.len()].copy_from_slice(entry.name.as_bytes());
            header.as_old_mut().linkname[..entry.link.len()].copy_from_slice(entry.link.as_bytes());
            header.set_entry_type(entry.kind);
            header.set_mode(entry.mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_device_major(254)?;
            header.set_device_minor(0)?;
            header.set_size(entry.size.unwrap_or(entry.content.len() as u64));
            header.set_cksum();
            archive.append(&header, entry.content.as_slice())?;
        }
        Ok(archive.into_inner()?)
    }
}

/// The name of the only part.
pub(in crate::suites::security) const PART: &str = "00000";
