//! docker's runtime `fastmig`, in place in its `daemon.json`.

use std::path::Path;

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Value};

use super::{Part, Source, Wanted};
use crate::consumer::Consumer;
use crate::{Error, Site};

pub(super) const SERVICE: &str = "docker";

const FILE: &str = "/etc/docker/daemon.json";
const SHIPPED: &str = include_str!("../../../containerd-config/docker-daemon.json");
const RUNTIMES: &str = "runtimes";

pub(super) fn part(site: &Site, source: &Source) -> Result<Part, Error> {
    if !site.has_program("dockerd") {
        return Ok(Part::left_alone("docker is not installed: left alone"));
    }
    let path = Path::new(FILE);
    let before = site.read_text(path)?.unwrap_or_default();
    let Some(text) = with_ours(path, &before, source)? else { return Ok(Part::default()) };
    let consumer = Some(Consumer::Docker);
    let wanted = Wanted { path: path.into(), content: Some(text.into()), mode: 0o644, consumer };
    Ok(Part { files: vec![wanted], restart: Some(SERVICE), ..Part::default() })
}

/// The file with our runtimes; nothing when they are there.
fn with_ours(path: &Path, text: &str, source: &Source) -> Result<Option<String>, Error> {
    let mut settings = parse(path, text)?;
    let mut is_changed = false;
    for (name, runtime) in shipped(&source.in_place(SHIPPED))? {
        let runtimes = settings.entry(RUNTIMES).or_insert_with(|| Map::new().into());
        let runtimes = runtimes.as_object_mut().ok_or_else(|| shape(path, text))?;
        if !runtimes.contains_key(&name) {
            runtimes.insert(name, runtime);
            is_changed = true;
        }
    }
    Ok(is_changed.then(|| print(&settings, text)))
}

/// The file without our runtimes, and without the table of runtimes when nothing else is in it.
pub(super) fn without_ours(path: &Path, text: &str) -> Result<String, Error> {
    let mut settings = parse(path, text)?;
    let Some(runtimes) = settings.get_mut(RUNTIMES) else { return Ok(text.to_owned()) };
    let runtimes = runtimes.as_object_mut().ok_or_else(|| shape(path, text))?;
    for (name, _) in shipped(SHIPPED)? {
        runtimes.shift_remove(&name);
    }
    if runtimes.is_empty() {
        settings.shift_remove(RUNTIMES);
    }
    Ok(print(&settings, text))
}

fn shipped(text: &str) -> Result<Map<String, Value>, Error> {
    let path = Path::new("docker-daemon.json");
    let mut settings = parse(path, text)?;
    match settings.shift_remove(RUNTIMES) {
        Some(Value::Object(runtimes)) => Ok(runtimes),
        _ => Err(shape(path, text)),
    }
}

/// dockerd takes an empty file for none.
fn parse(path: &Path, text: &str) -> Result<Map<String, Value>, Error> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(text).map_err(|e| {
        let (line, said) = (e.line(), e.to_string());
        let cause = said.split(" at line ").next().unwrap_or(&said).to_owned();
        Error::Syntax { path: path.to_owned(), line, cause }
    })
}

fn shape(path: &Path, text: &str) -> Error {
    let line = text.lines().position(|line| line.contains("\"runtimes\"")).map_or(1, |index| index + 1);
    Error::Syntax { path: path.to_owned(), line, cause: "runtimes is no object".into() }
}

/// In the operator's own indentation.
fn print(settings: &Map<String, Value>, like: &str) -> String {
    let line = like.lines().find(|line| line.trim_start().starts_with('"'));
    let indent = line.map_or("    ", |line| &line[..line.len() - line.trim_start().len()]);
    let indent = if indent.is_empty() { "    " } else { indent };
    let mut text = Vec::new();
    let formatter = PrettyFormatter::with_indent(indent.as_bytes());
    // Text in memory cannot fail.
    let _ = settings.serialize(&mut Serializer::with_formatter(&mut text, formatter));
    let mut text = String::from_utf8(text).unwrap_or_default();
    if like.is_empty() || like.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/etc/docker/daemon.json";

    fn edit(text: &str) -> Result<Option<String>, Error> {
        with_ours(Path::new(PATH), text, &Source { from: None, programs_dir: "/usr/bin".into() })
    }

    fn changed(text: &str) -> String {
        edit(text).unwrap().unwrap()
    }

    #[test]
    fn order_and_indentation_are_the_operators() {
        let before = "{\n\t\"zeta\": 1,\n\t\"alpha\": {\n\t\t\"b\": [\n\t\t\t1.5\n\t\t]\n\t}\n}\n";
        let after = changed(before);
        assert!(
            after.starts_with(
                "{\n\t\"zeta\": 1,\n\t\"alpha\": {\n\t\t\"b\": [\n\t\t\t1.5\n\t\t]\n\t},\n\t\"runtimes\""
            ),
            "{after}"
        );
        assert!(after.contains("\"path\": \"/usr/bin/fastmig\""), "{after}");
        assert_eq!(edit(&after).unwrap(), None);
        assert_eq!(without_ours(Path::new(PATH), &after).unwrap(), before);
    }

    #[test]
    fn other_runtimes_stay() {
        let before = "{\n  \"runtimes\": {\n    \"mine\": {\n      \"path\": \"/opt/mine\"\n    }\n  }\n}";
        let after = changed(before);
        assert!(after.contains("/opt/mine") && after.contains("/usr/bin/fastmig"), "{after}");
        assert_eq!(without_ours(Path::new(PATH), &after).unwrap(), before);
    }

    #[test]
    fn nothing_is_an_empty_file() {
        for text in ["", " \n"] {
            assert!(changed(text).starts_with("{\n    \"runtimes\": {\n"), "{text:?}");
        }
    }

    #[test]
    fn a_broken_file_is_named_with_its_line() {
        for (text, line) in
            [("{\n  \"debug\": true,\n}\n", 3), ("[]", 1), ("{\n\n\"runtimes\": 7}", 3), ("{", 1)]
        {
            let error = edit(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{PATH}, line {line}: ")), "{text}: {error}");
            assert!(!error.contains(" at line "), "{error}");
        }
    }
}
