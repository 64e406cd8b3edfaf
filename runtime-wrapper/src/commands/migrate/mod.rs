//! `fastmig migrate CONTAINER --to HOST`.
//!
//! | file | what it does |
//! |---|---|
//! | this one | reads what is asked, and says how it ended |
//! | `follow` | asks the daemon, and follows what happens until it answers: events, and Ctrl-C |
//! | `display` | shows it: a bar on a terminal, lines elsewhere |
//! | `rounds` | the rounds of memory, in lines |
//! | `summary` | what it came to, for people |

mod display;
mod follow;
pub(super) mod rounds;
mod summary;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::Args;
use fastmig_api::client::ClientError;
use fastmig_api::migration::Outcome;
use fastmig_api::operation::Done;
use fastmig_api::request::{
    Binds, Compression, MigrateRequest, OnTimeout, Strategy, Tcp, MAX_ROUNDS, MAX_SECONDS, MAX_STREAMS,
};
use fastmig_api::{Client, Code, MigrationReport};

use super::{daemon, Context};
use follow::Ending;

/// Exit code: the application is stopped until it is known what was decided, or can be thawed.
const STOPPED: u8 = 3;
/// Exit code: it was interrupted, and the application runs on here.
const INTERRUPTED: u8 = 130;

/// Move a running application into a container that waits on another host
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 it has moved; 1 it failed, and the application runs on here; 2 it was refused, and \
                        nothing was changed; 3 the application is stopped, for the other host is silent after the \
                        commit, or it could not be thawed; 130 it was interrupted."
)]
pub(crate) struct Arguments {
    /// The container's id or name, or what its id begins with
    container: String,
    /// The host that it moves to: a name that fastmigd knows, or ADDRESS:PORT
    #[arg(long, value_name = "HOST")]
    to: String,
    /// The container there that waits in standby [default: the one of the same name]
    #[arg(long, value_name = "NAME")]
    into: Option<String>,
    /// Make that container first, of the same image and with the same settings
    #[arg(long)]
    create: bool,
    /// Leave what was written in its root file system where it is
    #[arg(long)]
    no_files: bool,
    /// Take volumes along as well: mount points with commas between them, or all
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "no_files")]
    volumes: Vec<String>,
    /// Bind mounts that it may write to: refuse, or take the same path there for the same directory
    #[arg(long, value_name = "HOW", default_value = "refuse", value_parser = words::<Binds>(Binds::WORDS))]
    binds: Binds,
    /// A directory of this host, and the one there that holds the same; may be given several times
    #[arg(long, value_name = "HERE=THERE", value_parser = pair)]
    bind_map: Vec<(String, String)>,
    /// Established TCP connections [default: as the container's annotation says, else close]
    #[arg(long, value_name = "HOW", value_parser = words::<Tcp>(Tcp::WORDS))]
    tcp: Option<Tcp>,
    /// How its memory travels: stop-copy while it stands still; pre-copy in rounds while it runs; post-copy once it runs
    /// there, hybrid after some rounds: should this host be lost meanwhile, so is it; auto: in rounds where this host can track
    /// what it writes
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = words::<Strategy>(Strategy::WORDS))]
    strategy: Strategy,
    /// In rounds: stop it when it is predicted to stand still for no longer than so many milliseconds
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = within(MAX_SECONDS * 1000))]
    max_downtime: u64,
    /// The most rounds
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_ROUNDS)))]
    max_rounds: u32,
    /// The most seconds that all rounds may take together
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = seconds())]
    rounds_timeout: u64,
    /// After that many rounds or seconds: force its stop, however long that takes; abort; throttle it until it
    /// writes less; or post-copy: the rest follows it
    #[arg(long, value_name = "HOW", default_value = "force", value_parser = words::<OnTimeout>(OnTimeout::WORDS))]
    on_timeout: OnTimeout,
    /// With post-copy and hybrid: end it there when memory that it waits for does not come, for this host cannot be reached for so
    /// many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = seconds())]
    post_copy_timeout: u64,
    /// Compare all of its memory before it runs there; it stands still for that, too
    #[arg(long)]
    verify: bool,
    /// How many streams carry its memory
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_STREAMS)))]
    streams: Option<u8>,
    /// How its memory is compressed
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = words::<Compression>(Compression::WORDS))]
    compression: Compression,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds())]
    timeout: Option<u64>,
    /// Let it run on here when it has been frozen for so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds())]
    freeze_timeout: Option<u64>,
    /// Run none of the configured hooks
    #[arg(long)]
    no_hooks: bool,
    /// Only ask both hosts whether it could be done
    #[arg(long)]
    dry_run: bool,
}

impl Arguments {
    pub(crate) fn run(&self, context: &Context) -> ExitCode {
        let display = display::choose(context.output.json);
        let client = context.daemon();
        match follow::migrate(&client, &self.container, &self.request(), display) {
            Ok(Ending::Answered { answer, operation }) => self.conclude(context, &client, *answer, operation),
            Ok(Ending::Left) => {
                context.output.failure_text("left alone: it goes on without you; see fastmig history");
                ExitCode::from(INTERRUPTED)
            }
            Err(e) => context.daemon_failed(&e),
        }
    }

    fn request(&self) -> MigrateRequest {
        MigrateRequest {
            into: self.into.clone(),
            create: self.create,
            files: !self.no_files,
            volumes: self.volumes.clone(),
            binds: self.binds,
            bind_map: self.bind_map.iter().cloned().collect::<BTreeMap<_, _>>(),
            tcp: self.tcp,
            strategy: self.strategy,
            max_downtime_ms: self.max_downtime,
            max_rounds: self.max_rounds,
            rounds_timeout_s: self.rounds_timeout,
            on_timeout: self.on_timeout,
            post_copy_timeout_s: self.post_copy_timeout,
            verify: self.verify,
            streams: self.streams,
            compression: self.compression,
            timeout_s: self.timeout,
            freeze_timeout_s: self.freeze_timeout,
            hooks: !self.no_hooks,
            dry_run: self.dry_run,
            ..MigrateRequest::new(&self.to)
        }
    }

    fn conclude(
        &self,
        context: &Context,
        client: &Client,
        answer: Result<Done<MigrationReport>, ClientError>,
        operation: Option<String>,
    ) -> ExitCode {
        match answer {
            Ok(done) => {
                context.output.value(&done, |done| summary::of(&self.container, &done.report));
                ExitCode::SUCCESS
            }
            Err(e) => {
                let report = operation.and_then(|id| client.operation(&id).ok()?.migration);
                self.failed(context, &e, report.as_ref())
            }
        }
    }

    /// Says why, and where the application lives now.
    fn failed(&self, context: &Context, error: &ClientError, report: Option<&MigrationReport>) -> ExitCode {
        if context.output.json {
            let mut answer = daemon::as_json(error);
            answer["report"] = serde_json::json!(report);
            println!("{answer}");
        } else {
            eprintln!("fastmig: {}", daemon::as_text(error));
            eprintln!("{}", summary::where_it_is(&self.container, error, report));
        }
        match (report.map(|report| report.outcome), error.code()) {
            (Some(Outcome::Undecided | Outcome::Stopped), _) => ExitCode::from(STOPPED),
            (_, Some(Code::Cancelled)) => ExitCode::from(INTERRUPTED),
            _ => daemon::exit_code(error),
        }
    }
}

fn words<T>(all: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err = String> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(all).try_map(|word| word.parse())
}

fn seconds() -> impl TypedValueParser<Value = u64> {
    within(MAX_SECONDS)
}

fn within(most: u64) -> impl TypedValueParser<Value = u64> {
    clap::value_parser!(u64).range(1..=most)
}

fn pair(text: &str) -> Result<(String, String), String> {
    let both = text.split_once('=').filter(|(here, there)| here.starts_with('/') && there.starts_with('/'));
    let (here, there) = both.ok_or("give two absolute paths with = between them")?;
    Ok((here.into(), there.into()))
}

#[cfg(test)]
pub(crate) mod tests;
