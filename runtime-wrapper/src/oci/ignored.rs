//! Options of runc's `checkpoint` and `restore` that mean nothing here.

/// What FastMig does anyway, or has no need of: an application takes neither its container's network nor its cgroups
/// along, and a checkpoint says what it holds.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Taken for runc's sake, without effect")]
pub(crate) struct Ignored {
    /// Unix sockets with a peer outside are allowed
    #[arg(long)]
    ext_unix_sk: bool,
    /// A terminal is allowed
    #[arg(long)]
    shell_job: bool,
    /// File locks are kept
    #[arg(long)]
    file_locks: bool,
    /// Deleted files are kept
    #[arg(long)]
    link_remap: bool,
    /// The network stays where it is
    #[arg(long, value_name = "NAMESPACE")]
    empty_ns: Vec<String>,
    /// The cgroups stay where they are
    #[arg(long, value_name = "MODE")]
    manage_cgroups_mode: Option<String>,
    /// Memory is written once
    #[arg(long)]
    auto_dedup: bool,
}
