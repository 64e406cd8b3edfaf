//! A copy of a checkpoint, to be changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};

use super::Message;

/// The magic numbers that each of CRIU's images begins with.
const HEADER: usize = 8;

/// The root of the application whose checkpoint it is.
pub(in crate::suites::security) const ROOT: u64 = 1001;

/// A directory with a checkpoint in it.
#[derive(Debug)]
pub(in crate::suites::security) struct Checkpoint {
    directory: PathBuf,
}

impl Checkpoint {
    /// A copy of the one in `good` at `directory`, in place of what was there.
    pub(in crate::suites::security) fn copy(good: &Path, directory: &Path) -> Result<Self> {
        remove(directory)?;
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(good)? {
            let entry = entry?;
            fs::copy(entry.path(), directory.join(entry.file_name()))?;
        }
        Ok(Self { directory: directory.into() })
    }

    pub(in crate::suites::security) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(in crate::suites::security) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Changes what the manifest says.
    pub(in crate::suites::security) fn manifest(&self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let path = self.path("manifest.json");
        let mut manifest = serde_json::from_slice(&fs::read(&path)?)?;
        change(&mut manifest);
        Ok(fs::write(path, serde_json::to_vec(&manifest)?)?)
    }

    /// Changes the messages of one of CRIU's images.
    pub(in crate::suites::security) fn image(
        &self,
        name: &str,
        change: impl FnOnce(&mut Vec<Message>),
    ) -> Result<()> {
        let path = self.path(name);
        let bytes = fs::read(&path).with_context(|| format!("no image {name}"))?;
        let (header, mut rest) = bytes.split_at_checked(HEADER).context("no header")?;
        let mut messages = Vec::new();
        while let Some((length, content)) = rest.split_at_checked(4) {
            let length = u32::from_le_bytes(length.try_into()?) as usize;
            let (message, after) = content.split_at_checked(length).context("an image is cut short")?;
            messages.push(Message::parse(message)?);
            rest = after;
        }
        ensure!(rest.is_empty(), "{name} ends with something");
        change(&mut messages);
        Ok(fs::write(path, image(header, &messages)?)?)
    }

    /// As [`Checkpoint::image`], of the image's only message.
    pub(in crate::suites::security) fn message(
        &self,
        name: &str,
        change: impl FnOnce(&mut Message) -> Result<()>,
    ) -> Result<()> {
        let mut result = Ok(());
        self.image(name, |messages| {
            result = messages.first_mut().context("an empty image").and_then(change);
        })?;
        result
    }

    /// Changes the first message of an image in which something else follows.
    pub(in crate::suites::security) fn head(
        &self,
        name: &str,
        change: impl FnOnce(&mut Message),
    ) -> Result<()> {
        let path = self.path(name);
        let bytes = fs::read(&path).with_context(|| format!("no image {name}"))?;
        let (header, rest) = bytes.split_at_checked(HEADER).context("no header")?;
        let (length, content) = rest.split_at_checked(4).context("no message")?;
        let length = u32::from_le_bytes(length.try_into()?) as usize;
        let (message, after) = content.split_at_checked(length).context("an image is cut short")?;
        let mut message = Message::parse(message)?;
        change(&mut message);
        Ok(fs::write(path, [image(header, &[message])?.as_slice(), after].concat())?)
    }

    /// Adds an image of this kind (its second magic number).
    pub(in crate::suites::security) fn add_image(
        &self,
        name: &str,
        magic: u32,
        messages: &[Message],
    ) -> Result<()> {
        let header = [0x5456_4319_u32.to_le_bytes(), magic.to_le_bytes()].concat();
        Ok(fs::write(self.path(name), image(&header, messages)?)?)
    }

    /// Makes the manifest vouch for all that is there, as whoever changes images can.
    pub(in crate::suites::security) fn seal(&self) -> Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "manifest.json" && entry.file_type()?.is_file() {
                let content = fs::read(entry.path())?;
                let digest = blake3::hash(&content).to_hex().to_string();
                files.push(json!({ "name": name, "size": content.len(), "blake3": digest }));
            }
        }
        self.manifest(|manifest| manifest["files"] = files.into())
    }
}

fn image(header: &[u8], messages: &[Message]) -> Result<Vec<u8>> {
    let mut image = header.to_vec();
    for message in messages {
        let bytes = message.bytes();
        image.extend(u32::try_from(bytes.len())?.to_le_bytes());
        image.extend(bytes);
    }
    Ok(image)
}

/// Whatever is there.
pub(in crate::suites::security) fn remove(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(status) if status.is_dir() => Ok(fs::remove_dir_all(path)?),
        Ok(_) => Ok(fs::remove_file(path)?),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e.into()),
    }
}
