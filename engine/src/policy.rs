//! Which policy a container has: by name, never by path. What a policy names may run as root on the host, so only who may
//! write in the host's own directory makes one.

use std::path::Path;

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
    let path = directory.join(name).with_extension("toml");
    if path.exists() {
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
