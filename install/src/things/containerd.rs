//! containerd's handlers for Kubernetes, in place in its `config.toml`.
//!
//! Not by `imports`: in containerd 1.7 an imported file replaces a plugin's whole section, and with it what the
//! operator has set there. For the same reason containerd 1.7 forgets its built-in runtime `runc` as soon as the section
//! names any runtime, so that one is named too where there was none.

use std::path::Path;

use toml_edit::{DocumentMut, Item, Table, TableLike};

use super::{Part, Source, Wanted};
use crate::consumer::Consumer;
use crate::{Error, Site};

pub(super) const SERVICE: &str = "containerd";

const FILE: &str = "/etc/containerd/config.toml";
const VERSION_2: &str = include_str!("../../../containerd-config/containerd-1.7.toml");
const VERSION_3: &str = include_str!("../../../containerd-config/containerd-2.toml");

/// The plugin's names in all versions.
const PLUGINS: &[&str] = &["cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"];

/// containerd's own default, which our drop-ins name only because containerd 1.7 would forget it.
const BUILT_IN: &str = "runc";

/// Who manages the cgroups.
const OPTIONS: &str = "options";
const SYSTEMD_CGROUP: &str = "SystemdCgroup";

const MARK: &str = "\n# FastMig's (fastmig install --uninstall takes them out).\n";

/// What becomes of a configuration.
#[derive(Debug, PartialEq, Eq)]
enum Edit {
    Changed(String),
    Unchanged,
    LeftAlone(String),
}

pub(super) fn part(site: &Site, source: &Source) -> Result<Part, Error> {
    if !site.has_program("containerd") {
        return Ok(Part::left_alone("containerd is not installed: left alone"));
    }
    let path = Path::new(FILE);
    let before = site.read_text(path)?.unwrap_or_default();
    match with_ours(path, &before, source)? {
        Edit::LeftAlone(why) => Ok(Part::left_alone(format!("{FILE} is left alone: {why}"))),
        Edit::Unchanged => Ok(Part::default()),
        Edit::Changed(text) => {
            let consumer = Some(Consumer::Containerd);
            let wanted = Wanted { path: path.into(), content: Some(text.into()), mode: 0o644, consumer };
            Ok(Part { files: vec![wanted], restart: Some(SERVICE), ..Part::default() })
        }
    }
}

fn with_ours(path: &Path, text: &str, source: &Source) -> Result<Edit, Error> {
    let mut document = parse(path, text)?;
    if document.is_empty() {
        // Both containerd 1.7 and 2 read it.
        document["version"] = toml_edit::value(2);
    }
    let (shipped, plugin) = match document.get("version").and_then(Item::as_integer) {
        Some(2) => (VERSION_2, PLUGINS[1]),
        Some(3) => (VERSION_3, PLUGINS[2]),
        _ if is_disabled(&document) => return Ok(Edit::LeftAlone(DISABLED.into())),
        _ => return Ok(Edit::LeftAlone(OUTDATED.into())),
    };
    if is_disabled(&document) {
        return Ok(Edit::LeftAlone(DISABLED.into()));
    }
    let ours = handlers(&source.in_place(shipped), plugin)?;
    let runtimes = runtimes_of(&mut document, plugin)
        .ok_or_else(|| shape(path, text, &format!("plugins.{plugin:?}.containerd.runtimes")))?;
    match add(runtimes, ours) {
        true => Ok(Edit::Changed(document.to_string())),
        false => Ok(Edit::Unchanged),
    }
}

const DISABLED: &str =
    "its Kubernetes plugin (CRI) is disabled there, and ctr and nerdctl find FastMig without an entry";
const OUTDATED: &str =
    "it is of version 1; bring it up to date (containerd config migrate) and install again";

/// Adds those that are not there. Where runc leaves its cgroups to systemd, so do they.
fn add(runtimes: &mut dyn TableLike, ours: Table) -> bool {
    let is_first = runtimes.is_empty();
    let systemd = runtimes.get(BUILT_IN).and_then(|runc| runc.get(OPTIONS)?.get(SYSTEMD_CGROUP)?.as_bool());
    let mut is_changed = false;
    for (name, mut handler) in ours {
        if runtimes.contains_key(&name) || (name == BUILT_IN && !is_first) {
            continue;
        }
        if let Some(table) = handler.as_table_mut() {
            clear_positions(table);
            if systemd == Some(true) {
                table[OPTIONS].or_insert(toml_edit::table())[SYSTEMD_CGROUP] = toml_edit::value(true);
            }
            if !is_changed {
                table.decor_mut().set_prefix(MARK);
            }
        }
        runtimes.insert(&name, handler);
        is_changed = true;
    }
    is_changed
}

/// The file without our handlers, and without `runc` where it is as we would have added it and all that is left.
pub(super) fn without_ours(path: &Path, text: &str) -> Result<String, Error> {
    let mut document = parse(path, text)?;
    for (shipped, plugin) in [(VERSION_2, PLUGINS[1]), (VERSION_3, PLUGINS[2])] {
        let is_there = document.get("plugins").and_then(|plugins| plugins.get(plugin)).is_some();
        let Some(runtimes) = is_there.then(|| runtimes_of(&mut document, plugin)).flatten() else { continue };
        let ours = handlers(shipped, plugin)?;
        for (name, _) in ours.iter().filter(|(name, _)| *name != BUILT_IN) {
            runtimes.remove(name);
        }
        let is_last = runtimes.len() == 1;
        if is_last && runtimes.get(BUILT_IN).zip(ours.get(BUILT_IN)).is_some_and(|(a, b)| same(a, b)) {
            runtimes.remove(BUILT_IN);
        }
    }
    Ok(document.to_string())
}

/// The tables of a shipped file.
fn handlers(shipped: &str, plugin: &str) -> Result<Table, Error> {
    let path = Path::new("containerd-config");
    let mut document = parse(path, shipped)?;
    let runtimes = document["plugins"][plugin]["containerd"]["runtimes"].as_table_mut();
    runtimes.map(std::mem::take).ok_or_else(|| shape(path, shipped, "runtimes"))
}

fn same(a: &Item, b: &Item) -> bool {
    let entries = |item: &Item| -> Vec<(String, String)> {
        let table = item.as_table_like();
        let entries = table.into_iter().flat_map(TableLike::iter);
        entries.map(|(key, value)| (key.to_owned(), value.to_string().trim().to_owned())).collect()
    };
    entries(a) == entries(b)
}

/// The table of runtimes, made where there is none; nothing when something else stands in its place.
fn runtimes_of<'a>(document: &'a mut DocumentMut, plugin: &str) -> Option<&'a mut dyn TableLike> {
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for key in ["plugins", plugin, "containerd", "runtimes"] {
        if !table.contains_key(key) {
            let mut new = Table::new();
            new.set_implicit(true);
            table.insert(key, Item::Table(new));
        }
        table = table.get_mut(key)?.as_table_like_mut()?;
    }
    Some(table)
}

/// Lets a table stand where it is added, not where it stood.
fn clear_positions(table: &mut Table) {
    table.set_position(None);
    for (_, item) in table.iter_mut() {
        if let Some(inner) = item.as_table_mut() {
            clear_positions(inner);
        }
    }
}

fn is_disabled(document: &DocumentMut) -> bool {
    let disabled = document.get("disabled_plugins").and_then(Item::as_array);
    disabled.is_some_and(|names| {
        names.iter().filter_map(|name| name.as_str()).any(|name| PLUGINS.contains(&name))
    })
}

fn parse(path: &Path, text: &str) -> Result<DocumentMut, Error> {
    text.parse().map_err(|e: toml_edit::TomlError| {
        let start = e.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
        let cause = e.message().split_whitespace().collect::<Vec<_>>().join(" ");
        Error::Syntax { path: path.to_owned(), line, cause }
    })
}

fn shape(path: &Path, text: &str, name: &str) -> Error {
    let word = name.rsplit('.').next().unwrap_or(name);
    let line = text.lines().position(|line| line.contains(word)).map_or(1, |index| index + 1);
    Error::Syntax { path: path.to_owned(), line, cause: format!("{name} is no table") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/etc/containerd/config.toml";

    /// What Debian ships.
    const DEBIAN: &str = "version = 2\n\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    \
        [plugins.\"io.containerd.grpc.v1.cri\".cni]\n      bin_dir = \"/usr/lib/cni\"\n  \
        [plugins.\"io.containerd.internal.v1.opt\"]\n    path = \"/var/lib/containerd/opt\"\n";

    fn source() -> Source {
        Source { from: None, programs_dir: "/usr/bin".into() }
    }

    fn edit(text: &str) -> Edit {
        with_ours(Path::new(PATH), text, &source()).unwrap()
    }

    fn changed(text: &str) -> String {
        match edit(text) {
            Edit::Changed(text) => text,
            other => panic!("{other:?}"),
        }
    }

    fn runtimes(text: &str, plugin: &str) -> Vec<String> {
        let mut document = parse(Path::new(PATH), text).unwrap();
        let runtimes = runtimes_of(&mut document, plugin).unwrap();
        let mut names: Vec<String> = runtimes.iter().map(|(name, _)| name.to_owned()).collect();
        names.sort();
        names
    }

    const OURS: [&str; 3] = ["fastmig", "fastmig-as-runc", "fastmig-oci"];

    #[test]
    fn every_line_of_the_operators_stays_and_runc_with_them() {
        for text in [DEBIAN, &DEBIAN.replace('\n', "  # mine\n"), "# only words\n", ""] {
            let after = changed(text);
            assert_eq!(runtimes(&after, PLUGINS[1]), [&OURS[..], &["runc"]].concat(), "{after}");
            let mut lines = after.lines();
            for line in text.lines() {
                assert!(lines.any(|l| l == line), "{line:?} is lost or out of order:\n{after}");
            }
            assert!(after.contains("runtime_path = \"/usr/bin/containerd-shim-fastmig-v1\""), "{after}");
            assert_eq!(edit(&after), Edit::Unchanged);
        }
    }

    #[test]
    fn runtimes_of_the_operators_stay_alone() {
        for (version, plugin) in [(2, PLUGINS[1]), (3, PLUGINS[2])] {
            let text = format!(
                "version = {version}\n[plugins.'{plugin}'.containerd]\ndefault_runtime_name = 'mine'\n\
                 [plugins.'{plugin}'.containerd.runtimes.mine]\nruntime_type = 'io.containerd.runc.v2'\n\
                 [grpc]\naddress = '/a'\n"
            );
            let after = changed(&text);
            assert_eq!(runtimes(&after, plugin), [&OURS[..], &["mine"]].concat(), "{after}");
            assert_eq!(without_ours(Path::new(PATH), &after).unwrap(), text);
        }
    }

    #[test]
    fn cgroups_are_managed_as_runcs_are() {
        let runc =
            "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\nSystemdCgroup = ";
        let managed =
            |by: bool| changed(&format!("version = 3\n{runc}{by}\n")).matches("SystemdCgroup = true").count();
        assert_eq!((managed(true), managed(false)), (1 + OURS.len(), 0));
    }

    #[test]
    fn inline_tables_and_dotted_keys_are_understood() {
        for text in [
            "version = 2\nplugins = { \"io.containerd.grpc.v1.cri\" = { sandbox_image = \"p\" } }\n",
            "version = 2\nplugins.\"io.containerd.grpc.v1.cri\".sandbox_image = \"p\"\n",
        ] {
            let after = changed(text);
            assert!(after.contains("sandbox_image = \"p\""), "{after}");
            assert_eq!(runtimes(&after, PLUGINS[1]), [&OURS[..], &["runc"]].concat(), "{after}");
        }
    }

    #[test]
    fn ours_go_and_what_was_added_meanwhile_stays() {
        let theirs = "\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/certs\"\n";
        let after = without_ours(Path::new(PATH), &(changed(DEBIAN) + theirs)).unwrap();
        assert!(runtimes(&after, PLUGINS[1]).is_empty(), "{after}");
        assert!(after.contains("config_path") && !after.contains("fastmig"), "{after}");
        let kept = changed(DEBIAN).replace("fastmig-oci", "mine");
        let after = without_ours(Path::new(PATH), &kept).unwrap();
        assert_eq!(runtimes(&after, PLUGINS[1]), ["mine", "runc"], "runc went with ours");
    }

    #[test]
    fn what_needs_no_entry_or_cannot_take_one_is_left_alone() {
        for (text, why) in [
            ("disabled_plugins = [\"cri\"]\n", "disabled"),
            ("version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n", "disabled"),
            ("version = 3\ndisabled_plugins = [\"x\", \"io.containerd.cri.v1.runtime\"]\n", "disabled"),
            ("root = \"/data\"\n", "version 1"),
            ("version = 1\n", "version 1"),
        ] {
            let Edit::LeftAlone(reason) = edit(text) else { panic!("{text} was edited") };
            assert!(reason.contains(why), "{text}: {reason}");
        }
    }

    #[test]
    fn a_broken_file_is_named_with_its_line() {
        let error = |text| with_ours(Path::new(PATH), text, &source()).unwrap_err().to_string();
        let said = error("version = 2\n\nroot = [\n");
        assert!(said.starts_with("/etc/containerd/config.toml, line 3") || said.contains("line 4"), "{said}");
        let said = error("version = 2\nplugins = 7\n");
        assert!(said.contains("no table"), "{said}");
    }
}
