//! Which policy a container has: by name, never by path. What a policy names may run as root on the host, so only who may
//! write in the host's own directory makes one.

mod decider;

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub use decider::decide;
use fastmig_policy::{Rules, RulesError};

use crate::{Config, Error};

/// No policy: the container ends with its application, as on runc.
pub const OFF: &str = "off";

/// Whether this can be the name of a policy, or `off`.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    !text.is_empty() && text.len() <= 64 && text.chars().all(allowed)
}

/// The policy of this name: the host's file where there is one, else the one that comes with FastMig.
///
/// # Errors
/// When there is none, or it is wrong; the text names the line.
pub fn load(config: &Config, name: &str) -> Result<Rules, Error> {
    Ok(rules(&config.policy_dir, name)?)
}

fn rules(directory: &Path, name: &str) -> Result<Rules, RulesError> {
    let wrong = |cause: String| RulesError { name: name.into(), line: None, cause };
    if !is_name(name) || name == OFF {
        return Err(wrong("that is no name of a policy: letters, digits, - and _ only".into()));
    }
    let path = file(directory, name);
    if let Ok(metadata) = std::fs::metadata(&path) {
        if !is_trusted(&metadata) {
            return Err(wrong(format!(
                "others than root may write {}: chown root, chmod go-w",
                path.display()
            )));
        }
        return Rules::from_file(&path);
    }
    Rules::named(name).ok_or_else(|| {
        let known = fastmig_policy::NAMES.join(" and ");
        wrong(format!(
            "there is no {}, and it is none of those that come with FastMig: {known}",
            path.display()
        ))
    })
}

fn file(directory: &Path, name: &str) -> PathBuf {
    directory.join(name).with_extension("toml")
}

/// Whether nobody but root can have written it. Tests are not always root's.
fn is_trusted(metadata: &Metadata) -> bool {
    let ours = nix::unistd::geteuid().as_raw();
    (metadata.uid() == 0 || metadata.uid() == ours) && metadata.mode() & 0o022 == 0
}

/// The text of the policy of this name.
///
/// # Errors
/// When there is none.
pub fn text(config: &Config, name: &str) -> Result<String, Error> {
    let path = file(&config.policy_dir, name);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            load(config, name).map(|_| Rules::text(name).unwrap_or_default().to_owned())
        }
        Err(e) => Err(Error::io("read", &path, e)),
    }
}

/// The names of all policies on this host.
#[must_use]
pub fn names(config: &Config) -> Vec<String> {
    let entries = std::fs::read_dir(&config.policy_dir).into_iter().flatten().flatten();
    let name = |file: String| file.strip_suffix(".toml").filter(|name| is_name(name)).map(str::to_owned);
    let own = entries.filter_map(|entry| name(entry.file_name().into_string().ok()?));
    let all: std::collections::BTreeSet<String> =
        own.chain(fastmig_policy::NAMES.map(str::to_owned)).collect();
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_host_s_goes_before_ours() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        assert_eq!(rules(directory.path(), "paper").unwrap().name, "paper");
        write("paper.toml", "version = 1\nwindow = \"1s\"\n");
        assert_eq!(rules(directory.path(), "paper").unwrap().window.as_secs(), 1);
        write("bad.toml", "version = 1\nrule = 3\n");
        assert!(rules(directory.path(), "bad").unwrap_err().to_string().contains("bad.toml, line 2"));
        for name in ["../x", "/etc/x", "off", "", "a.b", "none"] {
            assert!(rules(directory.path(), name).is_err(), "{name}");
        }
    }
}
