//! `fastmig config [--check FILE]`: the settings in force, and where each one comes from.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use fastmig_engine::config::sources::Sources;
use fastmig_engine::config::CONFIG_FILE;
use fastmig_engine::{Config, Error};
use serde::Serialize;
use serde_json::Value;

use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only say whether this file would be a valid configuration
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

/// One setting.
#[derive(Debug, Serialize)]
struct Setting {
    /// With the name of its table before it.
    name: String,
    value: Value,
    /// The line that sets it; nothing when its value is built in.
    line: Option<usize>,
}

impl Arguments {
    /// The file may be wrong, so no command runs before this one has read it.
    pub(crate) fn run(&self, output: Output) -> ExitCode {
        let outcome = match &self.check {
            Some(file) => check(file, output),
            None => show(output),
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                output.failure(&e);
                ExitCode::FAILURE
            }
        }
    }
}

fn check(file: &Path, output: Output) -> Result<(), Error> {
    let text = std::fs::read_to_string(file).map_err(|source| Error::Io {
        action: "read",
        path: file.into(),
        source,
    })?;
    Config::parse(&text, file)?;
    let answer = serde_json::json!({ "file": file, "ok": true });
    output.value(&answer, |_| format!("{} is a valid configuration", file.display()));
    Ok(())
}

fn show(output: Output) -> Result<(), Error> {
    let (config, sources) = Config::with_sources(Path::new(CONFIG_FILE))?;
    let settings = settings(&config, &sources);
    let answer = serde_json::json!({ "file": sources.path(), "settings": settings });
    output.value(&answer, |_| text(&settings, sources.path()));
    Ok(())
}

fn settings(config: &Config, sources: &Sources) -> Vec<Setting> {
    let all = serde_json::to_value(config).unwrap_or_default();
    let setting = |name: String, value: &Value| {
        let line = sources.line(&name);
        Setting { name, value: value.clone(), line }
    };
    let mut settings = Vec::new();
    for (key, value) in all.as_object().into_iter().flatten() {
        match value.as_object() {
            Some(table) => {
                settings.extend(table.iter().map(|(inner, value)| setting(format!("{key}.{inner}"), value)));
            }
            None => settings.push(setting(key.clone(), value)),
        }
    }
    settings
}

/// As a configuration that could be in that file, with comments.
fn text(settings: &[Setting], file: &Path) -> String {
    let mut lines = Vec::new();
    let mut table = "";
    for setting in settings {
        let (of, key) = setting.name.split_once('.').unwrap_or(("", &setting.name));
        if of != table {
            lines.extend([String::new(), format!("[{of}]")]);
            table = of;
        }
        let source = match setting.line {
            Some(line) => format!("{}:{line}", file.display()),
            None => "built-in".to_owned(),
        };
        lines.push(format!("{key} = {}  # {source}", setting.value));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_a_configuration_of_the_same_meaning() {
        let file = Path::new("/etc/fastmig/config.toml");
        let given = "log_dir = \"/var/log/\\\"x\\\"\"\n\n[limits]\ncriu = 7\n";
        let (config, sources) = Config::parse(given, file).unwrap();
        let shown = text(&settings(&config, &sources), file);
        assert_eq!(Config::parse(&shown, file).unwrap().0, config);
        for line in [
            "runtime = \"runc\"  # built-in",
            "criu = 7  # /etc/fastmig/config.toml:4",
            "mode = \"warm\"  # built-in",
        ] {
            assert!(shown.lines().any(|l| l == line), "{line} is not in\n{shown}");
        }
    }
}
