//! An image's archive on its way in: passed on file by file, and refused when it names another image.
//!
//! docker, podman and containerd give images the names that an archive's index tells. A peer could thereby put something
//! of its own under the name of an image that others here run. So the index is read before the client sees it, and written
//! anew, so that both read the same.

use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value};
use tar::{Archive, Builder, Entry, EntryType, Header};

use crate::error::Error;

/// The files in which an archive names images.
const INDEXES: &[&str] = &["manifest.json", "index.json", "repositories"];

/// The longest of them, in bytes.
const MAX_INDEX: u64 = 4 << 20;

/// Passes the archive of the image `name` on. At most `limit` bytes are taken.
pub(crate) fn pass(
    input: &mut dyn Read,
    output: &mut dyn Write,
    name: &str,
    limit: u64,
) -> Result<(), Error> {
    let mut archive = Archive::new(input.take(limit));
    let mut builder = Builder::new(output);
    for entry in archive.entries().map_err(read_error)? {
        let mut entry = entry.map_err(read_error)?;
        let path = plain(&entry.path().map_err(read_error)?)?;
        if path.as_os_str().is_empty() {
            continue;
        }
        match entry.header().entry_type() {
            EntryType::Directory => {
                let mut header = header(EntryType::Directory, 0o755, 0);
                builder.append_data(&mut header, with_slash(&path), io::empty()).map_err(stream)?;
            }
            EntryType::Symlink => link(&mut builder, &entry, &path)?,
            EntryType::Regular | EntryType::Continuous => file(&mut builder, &mut entry, &path, name)?,
            // Global headers say nothing about files.
            EntryType::XGlobalHeader => {}
            other => return Err(bad(format!("{} is of type {other:?}", path.display()))),
        }
    }
    builder.into_inner().and_then(|output| output.flush()).map_err(stream)
}

fn file<R: Read>(
    builder: &mut Builder<&mut dyn Write>,
    entry: &mut Entry<'_, R>,
    path: &Path,
    name: &str,
) -> Result<(), Error> {
    let index = INDEXES.iter().find(|index| path == Path::new(index));
    let Some(index) = index else {
        let mut header = header(EntryType::Regular, 0o644, entry.size());
        let mut exact = Exact { left: entry.size(), inner: entry };
        return builder.append_data(&mut header, path, &mut exact).map_err(stream);
    };
    if entry.size() > MAX_INDEX {
        return Err(bad(format!("its {index} has {} bytes", entry.size())));
    }
    let value: Value = serde_json::from_reader(&mut *entry).map_err(|e| bad(format!("its {index}: {e}")))?;
    for named in names(index, &value)? {
        if !is_same(&named, name) {
            return Err(bad(format!("it names the image {named:?}, and {name} was to come")));
        }
    }
    let text = value.to_string();
    let mut header = header(EntryType::Regular, 0o644, text.len() as u64);
    builder.append_data(&mut header, path, text.as_bytes()).map_err(stream)
}

/// podman's archives have links between layers.
fn link<R: Read>(
    builder: &mut Builder<&mut dyn Write>,
    entry: &Entry<'_, R>,
    path: &Path,
) -> Result<(), Error> {
    let target = entry.link_name().map_err(read_error)?.unwrap_or_default().into_owned();
    let mut depth = path.components().count() - 1;
    for part in target.components() {
        depth = match part {
            Component::Normal(_) => depth + 1,
            Component::CurDir => depth,
            Component::ParentDir if depth > 0 => depth - 1,
            _ => return Err(bad(format!("{} links to {}", path.display(), target.display()))),
        };
    }
    let mut header = header(EntryType::Symlink, 0o777, 0);
    builder.append_link(&mut header, path, &target).map_err(stream)
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// A relative path without detours.
fn plain(path: &Path) -> Result<PathBuf, Error> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            _ => return Err(bad(format!("it has a file {}", path.display()))),
        }
    }
    Ok(plain)
}

fn with_slash(path: &Path) -> PathBuf {
    path.join("")
}

/// The names that an index gives.
fn names(index: &str, value: &Value) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    match index {
        "manifest.json" => {
            for image in value.as_array().into_iter().flatten() {
                names.extend(texts(field(image, "RepoTags")?));
            }
        }
        "index.json" => {
            for image in field(value, "manifests")?.as_array().into_iter().flatten() {
                let annotations = field(image, "annotations")?.as_object().cloned().unwrap_or_default();
                let named = |(key, _): &(&String, &Value)| {
                    ["io.containerd.image.name", "org.opencontainers.image.ref.name"].contains(&key.as_str())
                };
                names.extend(annotations.iter().filter(named).flat_map(|(_, value)| texts(value)));
            }
        }
        _ => {
            for (repository, tags) in value.as_object().unwrap_or(&Map::new()) {
                let tags = tags.as_object().cloned().unwrap_or_default();
                names.extend(tags.keys().map(|tag| format!("{repository}:{tag}")));
            }
        }
    }
    Ok(names)
}

/// A field as a program in Go finds it: whatever the case of its letters. Twice is too often.
fn field<'a>(value: &'a Value, name: &str) -> Result<&'a Value, Error> {
    let Some(object) = value.as_object() else { return Ok(&Value::Null) };
    if let Some(odd) = object.keys().find(|key| !key.is_ascii()) {
        return Err(bad(format!("an index has a field {odd:?}")));
    }
    let mut found = object.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
    match (found.next(), found.next()) {
        (None, _) => Ok(&Value::Null),
        (Some((_, value)), None) => Ok(value),
        (Some(_), Some(_)) => Err(bad(format!("an index has the field {name} twice"))),
    }
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().flat_map(texts).collect(),
        Value::String(text) => vec![text.clone()],
        Value::Null => Vec::new(),
        other => vec![other.to_string()],
    }
}

/// Whether an index's `named` is the image `name`; a bare tag is that of the name.
fn is_same(named: &str, name: &str) -> bool {
    let name = with_tag(name);
    let tag = name.rsplit(':').next().unwrap_or_default();
    familiar(&with_tag(named)) == familiar(&name) || named == tag
}

/// The name without docker's default registry, which not all clients write.
fn familiar(name: &str) -> &str {
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

/// The name with the tag that is meant when there is none.
pub(crate) fn with_tag(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or_default();
    match last.contains(':') || last.contains('@') {
        true => name.to_owned(),
        false => format!("{name}:latest"),
    }
}

/// Fails where the input ends early: the archive would otherwise be filled up with nothing.
struct Exact<'a, R> {
    left: u64,
    inner: &'a mut R,
}

impl<R: Read> Read for Exact<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.left = self.left.saturating_sub(count as u64);
        match count {
            0 if self.left > 0 && !into.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        }
    }
}

fn bad(why: String) -> Error {
    Error::BadArchive { why }
}

fn read_error(e: io::Error) -> Error {
    bad(e.to_string())
}

fn stream(source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::UnexpectedEof => bad("it ends early, or is larger than image_bytes allows".into()),
        _ => Error::Stream { source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = header(EntryType::Regular, 0o644, content.len() as u64);
            // Not through `set_path`, which refuses what a hostile peer would not.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn passed(files: &[(&str, &str)]) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        pass(&mut archive(files).as_slice(), &mut out, "redis:7", 1 << 20).map_err(|e| e.to_string())?;
        Ok(out)
    }

    #[test]
    fn an_archive_of_the_image_comes_out_with_the_same_content() {
        let layer = "x".repeat(3000);
        let files = [
            ("blobs/sha256/1", layer.as_str()),
            ("./manifest.json", r#"[{"Config":"c","RepoTags":["redis:7"],"Layers":["blobs/sha256/1"]}]"#),
            (
                "index.json",
                r#"{"manifests":[{"annotations":{"io.containerd.image.name":"docker.io/library/redis:7","org.opencontainers.image.ref.name":"7"}}]}"#,
            ),
            ("repositories", r#"{"redis":{"7":"1"}}"#),
        ];
        let out = passed(&files).unwrap();
        let mut archive = Archive::new(out.as_slice());
        let read: Vec<(String, String)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = String::new();
                entry.read_to_string(&mut content).unwrap();
                (entry.path().unwrap().display().to_string(), content)
            })
            .collect();
        let sent =
            files.map(|(path, content)| (path.trim_start_matches("./").to_owned(), content.to_owned()));
        assert_eq!(read, sent);
    }

    #[test]
    fn no_other_image_is_named() {
        for (file, content) in [
            ("manifest.json", r#"[{"RepoTags":["redis:7","nginx:1"]}]"#),
            ("./manifest.json", r#"[{"RepoTags":["nginx:1"]}]"#),
            ("manifest.json", r#"[{"repotags":["nginx:1"]}]"#),
            ("manifest.json", r#"[{"RepoTags":["redis:7"],"repoTAGS":["nginx:1"]}]"#),
            ("manifest.json", "[{\"RepoTag\u{17f}\":[\"nginx:1\"]}]"),
            (
                "index.json",
                r#"{"manifests":[{"annotations":{"io.containerd.image.name":"docker.io/library/nginx:1"}}]}"#,
            ),
            (
                "index.json",
                r#"{"Manifests":[{"annotations":{"org.opencontainers.image.ref.name":"nginx:1"}}]}"#,
            ),
            ("repositories", r#"{"redis":{"7":"1","8":"2"}}"#),
            ("manifest.json", "no json"),
        ] {
            let error = passed(&[(file, content)]).unwrap_err();
            assert!(error.contains("archive is refused"), "{content}: {error}");
        }
    }

    #[test]
    fn paths_sizes_and_ends_are_checked() {
        for path in ["../x", "/etc/passwd", "a/../../b"] {
            assert!(passed(&[(path, "x")]).unwrap_err().contains("it has a file"), "{path}");
        }
        let whole = archive(&[("blob", &"x".repeat(9000))]);
        let mut out = Vec::new();
        for (length, limit) in [(5000, 1 << 20), (whole.len(), 4000)] {
            let error = pass(&mut &whole[..length], &mut out, "redis:7", limit).unwrap_err().to_string();
            assert!(error.contains("ends early"), "{error}");
        }
    }

    #[test]
    fn links_stay_inside() {
        let linked = |target: &str| {
            let mut builder = Builder::new(Vec::new());
            let mut header = header(EntryType::Symlink, 0o777, 0);
            builder.append_link(&mut header, "a/layer.tar", target).unwrap();
            let mut out = Vec::new();
            pass(&mut builder.into_inner().unwrap().as_slice(), &mut out, "redis:7", 1 << 20)
        };
        linked("../b.tar").unwrap();
        assert!(linked("../../etc/passwd").is_err());
        assert!(linked("/etc/passwd").is_err());
    }
}
