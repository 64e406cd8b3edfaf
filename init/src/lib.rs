//! PID 1 of a FastMig container: stands above the image's command, so that the command can be checkpointed, ended,
//! restored or started again while the container stays up.
//!
//! It forwards signals, reaps, and does what the engine asks over the control socket (`fastmig_control`). It reads
//! no file of the image but the command's, starts nothing by itself, and knows nothing of CRIU. One thread, one
//! `poll`, without a timeout but while a decision is waited for: an idle init never wakes up, and no peer can make it wait.
//!
//! Called without arguments by CRIU, it is something else: the one that announces CRIU's stages (`announce`).
//!
//! # The application's life
//!
//! ```text
//!           Run            Release, exec          exit or Stop
//!  Standby ------> Held -----------------> Running -----------> Clearing ----> Standby
//!     |             |                         ^  |                 ^   nothing left
//!     |             | exec failed,            |  | exit            |
//!     |             | connection closed       |  | (policy End)    |
//!     |             +-------------------------|--|-----------------+
//!     | Expect                         Adopt  |  v                 |
//!     +-----------------------------> Restoring  the container ends| Abandon
//!                                         +------------------------+
//! ```
//!
//! Where the policy is to ask, an application that ends is followed by standby and a wait for a decision of bounded length
//! (`verdict`); a client that has asked for the end, by a signal to PID 1, is obeyed.
//!
//! In every state but `Running`, SIGTERM, SIGINT, SIGQUIT and SIGHUP end the container, as does [`End`]. `Clearing`
//! kills every child of the init until there is none: with its root gone, all that the application left behind has
//! been handed to the init, while sessions that were started from outside are nobody's children here and live on.
//!
//! [`End`]: fastmig_control::Request::End

mod announce;
mod app;
mod args;
mod changes;
mod children;
mod control;
mod init;
mod lookup;
mod message;
mod profile;
mod requests;
mod signals;
mod sys;
mod terminal;
mod verdict;

use std::ffi::OsString;

use fastmig_control::EXIT_INIT_FAILED;

use crate::args::Invocation;
use crate::control::ControlError;
use crate::init::Init;
use crate::profile::Profile;

/// Why the init did not start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Usage(#[from] args::UsageError),
    #[error("cannot announce what CRIU does: {0}")]
    Announce(std::io::Error),
    #[error("must be process 1 of a container, not process {0}")]
    NotFirst(u32),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("cannot {action}: {errno}")]
    System { action: &'static str, errno: nix::errno::Errno },
}

/// Runs the init with its command line (without the program's name) and returns the container's exit code.
#[must_use]
pub fn run(args: impl Iterator<Item = OsString>) -> u8 {
    match start(args) {
        Ok(code) => code,
        Err(error) => {
            message::say(&format!("fastmig-init: {error}"));
            EXIT_INIT_FAILED
        }
    }
}

fn start(args: impl Iterator<Item = OsString>) -> Result<u8, StartError> {
    let mut args = args.peekable();
    if args.peek().is_none() {
        if let Some(announcement) = announce::Announcement::from_environment() {
            return announcement.make().map_err(StartError::Announce);
        }
    }
    let options = match args::parse(args)? {
        Invocation::Version => {
            message::say(concat!("fastmig-init ", env!("CARGO_PKG_VERSION")));
            return Ok(0);
        }
        Invocation::Init(options) => options,
    };
    if std::process::id() != 1 {
        return Err(StartError::NotFirst(std::process::id()));
    }
    // The application often has the same uid: it must neither trace the init nor take its descriptors.
    let system = |action| move |errno| StartError::System { action, errno };
    nix::sys::prctl::set_dumpable(false).map_err(system("become undumpable"))?;
    let connections = control::Connections::listen_on(options.control_fd)?;
    let terminal = terminal::Terminal::release();
    let signals = signals::Signals::block_all().map_err(system("take the signals over"))?;
    Ok(Init::new(
        options.command,
        options.profile.as_deref().map(Profile::new),
        connections,
        terminal,
        signals,
    )
    .run())
}
