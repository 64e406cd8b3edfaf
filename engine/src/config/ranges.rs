//! Which values are possible.

use std::path::Path;

use super::sources::Sources;
use super::{hooks, Config, ConfigError};
use crate::policy;

/// The longest limit in seconds, a day: what takes longer hangs.
const LONGEST: u64 = 24 * 60 * 60;

/// The name of the runtime that calls the configured one.
const OURSELVES: &str = "fastmig";

/// Refuses values that nothing could work with.
pub(super) fn check(config: &Config, sources: &Sources) -> Result<(), ConfigError> {
    let limits = &config.limits;
    for (key, seconds) in [
        ("limits.runc", limits.runc),
        ("limits.init", limits.init),
        ("limits.criu", limits.criu),
        ("limits.freeze", limits.freeze),
        ("limits.lock", limits.lock),
        ("limits.decision", limits.decision),
    ] {
        if seconds == 0 || seconds > LONGEST {
            let remedy = format!("give a number of seconds from 1 to {LONGEST}");
            return Err(sources.error(key, format!("{key} is {seconds}, no possible time limit"), remedy));
        }
    }
    for (key, path) in [
        ("state_root", &config.state_root),
        ("runtime_dir", &config.runtime_dir),
        ("log_dir", &config.log_dir),
        ("policy_dir", &config.policy_dir),
    ] {
        if !path.is_absolute() {
            let cause = format!("{key} is {path:?}, which depends on where FastMig is started");
            return Err(sources.error(key, cause, "give a path that begins with /".into()));
        }
    }
    if !policy::is_name(&config.defaults.policy) {
        let cause = format!("defaults.policy is {:?}, no name of a policy", config.defaults.policy);
        let remedy = "give off, default, paper, or the name of a file in policy_dir without .toml".into();
        return Err(sources.error("defaults.policy", cause, remedy));
    }
    config.daemon.check(sources)?;
    hooks::check(&config.hooks, sources)?;
    config.periodic.check(sources)?;
    config.store.check(sources)?;
    config.confinement.check(sources)?;
    config.create.check(sources)?;
    check_runtime(&config.runtime, sources)
}

fn check_runtime(runtime: &Path, sources: &Sources) -> Result<(), ConfigError> {
    let refused = |cause: &str| {
        let remedy = "give runc, crun, or the absolute path of one".into();
        Err(sources.error("runtime", format!("runtime is {runtime:?}, {cause}"), remedy))
    };
    match runtime.file_name() {
        None => refused("which names no program"),
        Some(name) if name == OURSELVES => refused("which would call itself for ever"),
        Some(name) if !runtime.is_absolute() && name != runtime => {
            refused("which depends on where FastMig is started")
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Config::parse(text, Path::new("/c.toml")).unwrap_err().to_string()
    }

    #[test]
    fn limits_are_neither_nothing_nor_endless() {
        for (name, seconds) in
            [("runc", 0), ("init", 0), ("criu", 86_401), ("freeze", 0), ("lock", u64::MAX >> 1)]
        {
            let error = refused(&format!("[limits]\n\n{name} = {seconds}\n"));
            assert!(error.starts_with(&format!("/c.toml, line 3: limits.{name} is {seconds}")), "{error}");
            assert!(error.contains("from 1 to 86400"), "{error}");
        }
        assert!(Config::parse("limits = { runc = 1, criu = 86400 }", Path::new("/c.toml")).is_ok());
    }

    #[test]
    fn directories_are_absolute() {
        for key in ["state_root", "runtime_dir", "log_dir"] {
            let error = refused(&format!("# why\n{key} = \"run/fastmig\"\n"));
            assert!(error.starts_with(&format!("/c.toml, line 2: {key} is ")), "{error}");
        }
    }

    #[test]
    fn the_runtime_is_another_program() {
        for (runtime, cause) in [
            ("", "names no program"),
            ("bin/runc", "depends on"),
            ("./runc", "depends on"),
            ("fastmig", "for ever"),
            ("/usr/local/bin/fastmig", "for ever"),
        ] {
            let error = refused(&format!("runtime = {runtime:?}\n"));
            assert!(error.starts_with("/c.toml, line 1: ") && error.contains(cause), "{error}");
        }
        for runtime in ["crun", "/usr/sbin/runc"] {
            assert!(Config::parse(&format!("runtime = {runtime:?}"), Path::new("/c.toml")).is_ok());
        }
    }
}
