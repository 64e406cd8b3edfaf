//! The AppArmor profiles for containers, their inits, and for CRIU, all made from one template.

mod glob;

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Part, Wanted};
use crate::consumer::{last_line, run, Consumer};
use crate::{Error, Site};

/// Where AppArmor's own service looks for profiles when the host comes up.
const DIRECTORY: &str = "/etc/apparmor.d";

/// Whether the kernel runs AppArmor.
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";

const TEMPLATE: &str = include_str!("../../../../apparmor/profiles.template");

/// The profiles, by their names in the template, and what each is called.
const PROFILES: &[(&str, &str)] =
    &[("container", "fastmig-container"), ("init", "fastmig-init"), ("criu", "fastmig-criu")];

/// What all of them have: files whose names the container's root does not lead to are files all the same.
const FLAGS: &str = "flags=(attach_disconnected,mediate_deleted)";

pub(super) fn part(site: &Site) -> Result<Part, Error> {
    if site.metadata(Path::new(DIRECTORY))?.is_none() {
        return Ok(Part::default());
    }
    let files = PROFILES.iter().map(|(short, name)| Wanted {
        path: Path::new(DIRECTORY).join(name),
        content: Some(profile(short, name).into_bytes()),
        mode: 0o644,
        consumer: Some(Consumer::AppArmor),
    });
    Ok(Part { files: files.collect(), ..Part::default() })
}

/// Gives the kernel the profiles that are in place, or takes them back; answers what went wrong. Without AppArmor, and for
/// another host, there is nothing to do: its own service loads them when that host comes up.
pub(crate) fn tell_kernel(site: &Site, wanted: Wish) -> Vec<String> {
    let Some(parser) = site.program("apparmor_parser").filter(|_| site.is_this_host() && is_enabled()) else {
        return Vec::new();
    };
    let there = |path: &PathBuf| site.metadata(path).is_ok_and(|found| found.is_some());
    let paths = PROFILES.iter().map(|(_, name)| Path::new(DIRECTORY).join(name)).filter(there);
    let failed = paths.filter_map(|path| {
        let answer = run(Command::new(&parser).arg(wanted.option()).arg(&path));
        let words = match answer {
            Ok(answer) if answer.status.success() => return None,
            Ok(answer) => last_line(&answer.err).unwrap_or_default().to_owned(),
            Err(e) => e.to_string(),
        };
        Some(format!("AppArmor did not {} {}: {words}", wanted.word(), path.display()))
    });
    failed.collect()
}

fn is_enabled() -> bool {
    std::fs::read_to_string(ENABLED).is_ok_and(|text| text.trim() == "Y")
}

/// What the kernel is to do with the profiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Take them, in place of older ones.
    Load,
    /// Forget them.
    Unload,
}

impl Wish {
    fn option(self) -> &'static str {
        match self {
            Self::Load => "--replace",
            Self::Unload => "--remove",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Unload => "unload",
        }
    }
}

/// The text of one profile.
fn profile(short: &str, name: &str) -> String {
    let rules = TEMPLATE.lines().filter_map(|line| {
        let (profiles, rule) = line.split_once('|').filter(|_| !line.starts_with('#'))?;
        profiles
            .split_whitespace()
            .any(|profile| profile == short)
            .then(|| format!("  {}\n", rendered(rule.trim())))
    });
    let rules: String = rules.collect();
    format!("# Made by fastmig install; fastmig uninstall removes it.\n#include <tunables/global>\n\nprofile {name} {FLAGS} {{\n{rules}}}\n")
}

/// The rule with each `<all but ...>` as a glob.
fn rendered(rule: &str) -> String {
    let mut text = String::new();
    let mut rest = rule;
    while let Some((before, kept, after)) = next_hole(rest) {
        text.push_str(before);
        text.push_str(&glob::all_but(&kept.split_whitespace().collect::<Vec<_>>()));
        rest = after;
    }
    text + rest
}

fn next_hole(rule: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = rule.split_once("<all but ")?;
    let (kept, after) = rest.split_once('>')?;
    Some((before, kept, after))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Stdio;

    use super::*;

    #[test]
    fn each_profile_has_its_own_rules_and_no_others() {
        let (container, criu) = (profile("container", "fastmig-container"), profile("criu", "fastmig-criu"));
        assert!(container.contains("deny mount,") && !criu.contains("deny mount,"));
        assert!(criu.contains("capability sys_admin,") && !container.contains("capability sys_admin,"));
        let init = profile("init", "fastmig-init");
        assert!(init.contains("change_profile -> fastmig-container,") && !init.contains("file,"));
        for text in [container, criu, init] {
            assert!(!text.contains('|') && !text.contains("<all"), "{text}");
            assert_eq!(text.matches('{').count(), text.matches('}').count(), "{text}");
        }
    }

    #[test]
    fn criu_has_the_capabilities_of_the_table() {
        let table = include_str!("../../../../docs/capabilities.md");
        // Inside a container it runs under the application's profile.
        let helper = table.split("## Inside the container").next().unwrap();
        let names = helper.lines().filter_map(|line| line.strip_prefix("| CAP_")?.split(' ').next());
        let criu = profile("criu", "fastmig-criu");
        for name in names {
            assert!(criu.contains(&format!("capability {},", name.to_lowercase())), "{name}");
        }
    }

    /// Without the kernel: what the parser says of the text.
    #[test]
    fn apparmor_understands_them() {
        if Command::new("apparmor_parser").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: there is no apparmor_parser");
            return;
        }
        for (short, name) in PROFILES {
            let mut parser = Command::new("apparmor_parser")
                .args(["--skip-kernel-load", "--skip-cache", "--quiet"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            parser.stdin.take().unwrap().write_all(profile(short, name).as_bytes()).unwrap();
            let output = parser.wait_with_output().unwrap();
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
