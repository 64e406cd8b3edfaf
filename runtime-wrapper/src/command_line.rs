//! What was asked: runc's global options, ours, and the command.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, CommandFactory, Parser, Subcommand};
use fastmig_engine::{runc, Config};

use crate::commands::{
    self, check, completion, config, events, history, install, migrate, policy, ps, report, standby,
    start_options, status,
};
use crate::oci::{self, Runtime};
use crate::output::Output;

/// An OCI runtime in front of runc whose applications can be checkpointed, restored and migrated while their
/// containers stay up.
#[derive(Debug, Parser)]
#[command(name = "fastmig", about, max_term_width = 100, disable_version_flag = true)]
pub(crate) struct CommandLine {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(flatten)]
    pub(crate) ours: Ours,
    #[command(subcommand)]
    command: Option<Command>,
}

/// runc's global options, as they are handed over to it.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of runc")]
pub(crate) struct Global {
    /// Where runc keeps its state
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Where errors are written instead of standard error
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
    /// More words
    #[arg(long)]
    pub(crate) debug: bool,
    /// Let systemd make the cgroups
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
    /// Handed over as it is
    #[arg(long, value_name = "VALUE")]
    rootless: Option<OsString>,
    /// Handed over as it is; FastMig has a CRIU of its own
    #[arg(long, value_name = "FILE")]
    criu: Option<OsString>,
    /// Handed over as it is (crun)
    #[arg(long, value_name = "NAME")]
    cgroup_manager: Option<OsString>,
    /// FastMig's version and runc's
    #[arg(long, short)]
    version: bool,
}

/// The options that runc does not have.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of FastMig")]
pub(crate) struct Ours {
    /// The OCI runtime that makes the containers: runc or crun, a path or a name
    #[arg(long, value_name = "FILE")]
    runtime_binary: Option<PathBuf>,
    /// Answer with one JSON document instead of text (operator's commands)
    #[arg(long, global = true)]
    json: bool,
    /// The namespace of the container; needed only where its name is not unique (operator's commands)
    #[arg(long, short, global = true)]
    namespace: Option<String>,
}

/// A command of runc: what stands behind its name is read by the command's own file, or handed over.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Raw {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub(crate) arguments: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Save the application's state to a directory
    Checkpoint(Raw),
    /// Bring a saved application up, in a container that is in standby or in a new one
    Restore(Raw),
    /// Start the image's command in a container that is in standby, or create and start a container
    Run(Raw),
    /// End the application and keep its container up
    Standby(standby::Arguments),
    /// Move a running application into a container that waits on another host
    Migrate(migrate::Arguments),
    /// Show the migrations that this host took part in
    History(history::Arguments),
    /// Make a page with charts of them, which opens without a network
    Report(report::Arguments),
    /// Show, delete, fetch and store checkpoints at rest
    Checkpoints(Raw),
    /// Show how one container stands, or all of them
    Status(status::Arguments),
    /// Say what would make a checkpoint fail, without stopping anything
    Check(check::Arguments),
    /// Show or change how a container's application comes up the next time
    StartOptions(start_options::Arguments),
    /// Say what a fault policy would decide, or show its rules
    Policy(policy::Arguments),
    /// Show the settings in force, and where each one comes from
    Config(config::Arguments),
    /// Put FastMig into this host, or take it out
    Install(install::Arguments),
    /// Print what makes a shell complete FastMig's commands
    Completion(completion::Arguments),
    /// Write manual pages and completions, for a package
    #[command(hide = true)]
    Share(completion::Share),
    /// Create a container
    Create(Raw),
    /// Start what was created
    Start(Raw),
    /// Output the state of a container
    State(Raw),
    /// Send a signal to a container's application
    Kill(Raw),
    /// Delete a container
    Delete(Raw),
    /// Execute another process in a container
    Exec(Raw),
    /// Show the containers under FastMig, or the processes of one
    Ps(Raw),
    /// Freeze a container's application
    Pause(Raw),
    /// Thaw it
    Resume(Raw),
    /// Change a container's limits
    Update(Raw),
    /// Show what happens on this host, or a container's events and statistics
    Events(Raw),
    /// List containers
    List(Raw),
    /// Write a new specification file
    Spec(Raw),
    /// Show what the runtime can do
    Features(Raw),
    /// Beside `run` in the foreground
    #[command(hide = true)]
    Attend(oci::attend::Arguments),
}

impl Raw {
    fn is_empty(&self) -> bool {
        self.arguments.is_empty()
    }
}

impl CommandLine {
    pub(crate) fn run(self) -> ExitCode {
        let output = Output { json: self.ours.json };
        // These work on a host whose configuration does not.
        match &self.command {
            Some(Command::Config(arguments)) => return arguments.run(output),
            Some(Command::Install(arguments)) => return arguments.run(output),
            Some(Command::Completion(arguments)) => return arguments.run(described()),
            Some(Command::Share(arguments)) => return arguments.run(described(), output),
            _ => {}
        }
        let config = match Config::load() {
            Ok(config) => Arc::new(config),
            Err(e) => {
                oci::report::say(&self.global.runc_log(), &e);
                return ExitCode::FAILURE;
            }
        };
        let binary = self.ours.runtime_binary.unwrap_or_else(|| config.runtime.clone());
        let context = commands::Context { config: config.clone(), namespace: self.ours.namespace, output };
        let runtime = Runtime::new(config, self.global, binary);
        match self.command {
            Some(command) => command.run(&context, &runtime),
            None if runtime.global.version => oci::version::run(&runtime),
            None => usage(),
        }
    }
}

fn usage() -> ExitCode {
    // As runc: help, and no failure.
    let _ = CommandLine::command().print_help();
    ExitCode::SUCCESS
}

/// All of it, for completions and manual pages: with the options that a command reads only when it is called.
fn described() -> clap::Command {
    let own: [(&str, clap::Command); 3] = [
        ("checkpoint", oci::checkpoint::Arguments::command()),
        ("restore", oci::restore::Arguments::command()),
        ("run", oci::run::Arguments::command()),
    ];
    own.into_iter().fold(CommandLine::command(), |all, (name, options)| {
        all.mut_subcommand(name, |raw| match raw.get_about().cloned() {
            Some(about) => options.name(name).about(about),
            None => options.name(name),
        })
    })
}

impl Command {
    fn run(self, context: &commands::Context, runtime: &Runtime) -> ExitCode {
        match self {
            Self::Standby(arguments) => context.conclude(arguments.run(context)),
            Self::Status(arguments) => context.conclude(arguments.run(context)),
            Self::Check(arguments) => context.conclude(arguments.run(context)),
            Self::StartOptions(arguments) => context.conclude(arguments.run(context)),
            Self::Policy(arguments) => context.conclude(arguments.run(context)),
            Self::Migrate(arguments) => arguments.run(context),
            Self::History(arguments) => arguments.run(context),
            Self::Report(arguments) => arguments.run(context),
            Self::Checkpoints(raw) => commands::store::checkpoints(context, &raw.arguments),
            Self::Config(arguments) => arguments.run(context.output),
            Self::Install(arguments) => arguments.run(context.output),
            Self::Completion(arguments) => arguments.run(described()),
            Self::Share(arguments) => arguments.run(described(), context.output),
            Self::Checkpoint(raw) => oci::checkpoint::run(context, runtime, &raw.arguments),
            Self::Restore(raw) => oci::restore::run(context, runtime, &raw.arguments),
            Self::Run(raw) => oci::run::run(context, runtime, &raw.arguments),
            Self::Create(raw) => oci::create::run(runtime, &raw.arguments),
            Self::Start(raw) => oci::plain::start(runtime, &raw.arguments),
            Self::State(raw) => oci::plain::state(runtime, &raw.arguments),
            Self::Kill(raw) => oci::kill::run(runtime, &raw.arguments),
            Self::Delete(raw) => oci::delete::run(runtime, &raw.arguments),
            Self::Exec(raw) => oci::exec::run(runtime, &raw.arguments),
            Self::Pause(raw) => oci::plain::pause(runtime, &raw.arguments),
            Self::Resume(raw) => oci::plain::resume(runtime, &raw.arguments),
            Self::List(raw) => oci::list::run(runtime, &raw.arguments),
            // Of no container: of all, which runc has no word for.
            Self::Ps(raw) if raw.is_empty() && runtime.is_called_by_operator() => ps::run(context),
            Self::Events(raw) if raw.is_empty() && runtime.is_called_by_operator() => events::run(context),
            Self::Ps(raw) => runtime.hand_over("ps", &raw.arguments),
            Self::Update(raw) => runtime.hand_over("update", &raw.arguments),
            Self::Events(raw) => runtime.hand_over("events", &raw.arguments),
            Self::Spec(raw) => runtime.hand_over("spec", &raw.arguments),
            Self::Features(raw) => runtime.hand_over("features", &raw.arguments),
            Self::Attend(arguments) => arguments.run(runtime),
        }
    }
}

impl Global {
    /// Where runc's words, and ours in its place, are to go.
    pub(crate) fn runc_log(&self) -> runc::Log {
        runc::Log { path: self.log.clone(), format: self.log_format.clone(), debug: self.debug }
    }

    /// As they were given.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut arguments = self.runc_log().arguments();
        let root = self.root.clone().map(OsString::from);
        let options = [("--root", &root), ("--rootless", &self.rootless), ("--criu", &self.criu)];
        for (name, value) in options.into_iter().chain([("--cgroup-manager", &self.cgroup_manager)]) {
            if let Some(value) = value {
                arguments.extend([name.into(), value.clone()]);
            }
        }
        if self.systemd_cgroup {
            arguments.push("--systemd-cgroup".into());
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(arguments: &[&str]) -> (CommandLine, Vec<OsString>) {
        let mut line = CommandLine::try_parse_from([&["fastmig"], arguments].concat()).unwrap();
        let rest = match line.command.take() {
            Some(
                Command::Exec(raw) | Command::Create(raw) | Command::List(raw) | Command::Checkpoint(raw),
            ) => raw.arguments,
            other => panic!("{other:?}"),
        };
        (line, rest)
    }

    #[test]
    fn what_follows_a_command_of_runc_is_left_as_it_is() {
        let (line, rest) =
            raw(&["--root", "/r", "--log-format", "json", "exec", "-d", "--tty", "web", "ls", "--help"]);
        assert_eq!(rest, ["-d", "--tty", "web", "ls", "--help"]);
        assert_eq!(line.global.arguments(), ["--log-format", "json", "--root", "/r"]);
        assert_eq!(raw(&["checkpoint", "--help"]).1, ["--help"]);
        assert_eq!(raw(&["list", "--format=json"]).1, ["--format=json"]);
    }

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
        described().debug_assert();
    }

    #[test]
    fn what_is_described_has_the_options_of_each_command() {
        let all = described();
        let options = |name: &str| -> Vec<_> {
            let command = all.get_subcommands().find(|sub| sub.get_name() == name).unwrap();
            command.get_arguments().filter_map(|argument| argument.get_long()).collect()
        };
        assert!(options("checkpoint").contains(&"standby"));
        assert!(options("restore").contains(&"image-path"));
        assert!(options("migrate").contains(&"to"));
    }
}
