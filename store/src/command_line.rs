//! What was asked.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Checkpoints at rest: in a directory, in a registry, in an S3-compatible object store.
#[derive(Debug, Parser)]
#[command(name = "fastmig checkpoints", about, max_term_width = 100)]
pub(crate) struct CommandLine {
    /// Answer with one JSON document instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where LOCATION is `/DIR/NAME`, `s3://BUCKET/PREFIX/NAME`, `oci://REGISTRY/REPOSITORY:NAME`, or `store:NAME` for the
/// place in the settings; a PLACE is the same without a name.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the checkpoints of a place
    List(List),
    /// Delete a stored checkpoint
    Delete(Delete),
    /// Delete what interrupted pushes have left and, with --keep, old checkpoints
    Prune(Prune),
    /// Store the checkpoint in a directory
    Push(Push),
    /// Bring a stored checkpoint to a directory
    Pull(Pull),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// The place; the one in the settings when not given
    #[arg(value_name = "PLACE", default_value = "store:")]
    pub(crate) place: String,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The checkpoint
    pub(crate) location: String,
}

#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// The place; the one in the settings when not given
    #[arg(value_name = "PLACE", default_value = "store:")]
    pub(crate) place: String,
    /// Parts that nobody has added to for this long belong to no push any more
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = fastmig_engine::parse_duration)]
    pub(crate) older_than: Duration,
    /// Let so many checkpoints stay of each container
    #[arg(long, value_name = "N")]
    pub(crate) keep: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The checkpoint
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Where it is to be; the place in the settings when not given, and a name is made where none is
    #[arg(default_value = "store:")]
    pub(crate) location: String,
    /// The container that it is of
    #[arg(long, value_name = "NAME")]
    pub(crate) container: String,
    /// Encrypt it to the recipients in the settings
    #[arg(long)]
    pub(crate) encrypt: bool,
    /// Let so many checkpoints of this container stay; as the settings say when not given
    #[arg(long, value_name = "N")]
    pub(crate) keep: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// The checkpoint; where no name is, the youngest of --container
    pub(crate) location: String,
    /// Where it is to stand; nothing or an empty directory may be there
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// The container whose youngest checkpoint is meant
    #[arg(long, value_name = "NAME")]
    pub(crate) container: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        <CommandLine as clap::CommandFactory>::command().debug_assert();
    }
}
