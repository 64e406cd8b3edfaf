//! `fastmig start-options get|set|clear CONTAINER`: how its application comes up the next time.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use fastmig_engine::start_file::{self, StartAs, StartFile};
use fastmig_engine::{state, Error, Key, Kind};
use serde_json::json;

use super::Context;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show what was said about a container's next starts
    Get { container: String },
    /// Say it anew; what is left out is as the container's creator has it
    Set(Box<Set>),
    /// Leave all to the container's creator again
    Clear { container: String },
}

#[derive(Debug, Args)]
struct Set {
    container: String,
    /// All of it from a file, instead of the other options
    #[arg(long, value_name = "FILE", conflicts_with_all = ["mode", "checkpoint", "arguments", "environment", "unset"])]
    file: Option<PathBuf>,
    /// How the application comes up when the container starts
    #[arg(long)]
    mode: Option<Mode>,
    /// With --mode restore: latest, a name of one of the daemon's, or a path
    #[arg(long)]
    checkpoint: Option<String>,
    /// One more argument of the command
    #[arg(long = "arg", value_name = "WORD", allow_hyphen_values = true)]
    arguments: Vec<String>,
    /// A variable that the command gets
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    environment: Vec<(String, String)>,
    /// A variable that it does not get
    #[arg(long, value_name = "NAME")]
    unset: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    Run,
    Restore,
    Standby,
}

impl From<Mode> for StartAs {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Run => Self::Run,
            Mode::Restore => Self::Restore,
            Mode::Standby => Self::Standby,
        }
    }
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("give NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Arguments {
    pub(crate) fn run(&self, context: &Context) -> Result<ExitCode, Error> {
        match &self.verb {
            Verb::Get { container } => get(context, container)?,
            Verb::Set(set) => set.run(context)?,
            Verb::Clear { container } => {
                let cleared = start_file::clear(&context.config, &key(context, container)?)?;
                let words = if cleared { "its creator decides again" } else { "nothing was said" };
                context.output.value(&json!({ "cleared": cleared }), |_| words.into());
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// One that is not there now, and will be again, is meant by its namespace and its whole id.
fn key(context: &Context, container: &str) -> Result<Key, Error> {
    match state::find(&context.config, container, context.namespace.as_deref()) {
        Err(e) if e.kind() == Kind::NotFound => match &context.namespace {
            Some(namespace) => Key::new(namespace, container),
            None => Err(e),
        },
        found => found,
    }
}

fn get(context: &Context, container: &str) -> Result<(), Error> {
    let key = key(context, container)?;
    let path = start_file::path(&context.config, &key);
    let file = start_file::load(&context.config, &key)?;
    let answer = json!({ "path": path, "options": file });
    context.output.value(&answer, |_| match &file {
        None => "nothing was said: the container starts as its creator has it".into(),
        Some(file) => format!("# {}\n{}", path.display(), file.text().trim_end()),
    });
    Ok(())
}

impl Set {
    fn run(&self, context: &Context) -> Result<(), Error> {
        let key = key(context, &self.container)?;
        let file = match &self.file {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|source| Error::Io {
                    action: "read",
                    path: path.clone(),
                    source,
                })?;
                StartFile::parse(&text, path)?
            }
            None => StartFile {
                mode: self.mode.map(StartAs::from),
                checkpoint: self.checkpoint.clone(),
                arguments: self.arguments.clone(),
                unset: self.unset.clone(),
                environment: self.environment.iter().cloned().collect(),
                ..StartFile::default()
            },
        };
        start_file::store(&context.config, &key, &file)?;
        let path = start_file::path(&context.config, &key);
        context.output.value(&json!({ "path": path }), |_| format!("{} is written", path.display()));
        Ok(())
    }
}
