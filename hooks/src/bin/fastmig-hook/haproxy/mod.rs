//! HAProxy: no request fails while the server behind it moves.
//!
//! HAProxy itself queues requests only for a server that is full, never for one that is away. So, for the time of the move,
//! a server of our own stands in: it accepts connections and lets their requests wait. The true one goes into maintenance,
//! where it finishes what it has begun and gets nothing new. When it is back, at another address, our stand-in passes on
//! what it has kept, and leaves.
//!
//! ```text
//!   web: ready ──hold──► web: maintenance, drained ──release──► web: ready, at its new address
//!                        stand-in: ready, keeps                 stand-in: maintenance, passes on, removed
//! ```
//!
//! HAProxy's own state is all the state there is: the stand-in sees there that the server is back, whoever brought it.
//!
//! | file | what it does |
//! |---|---|
//! | `admin` | HAProxy's runtime API |
//! | `stages` | what is to be done at which stage |
//! | `hold` | the way in: the stand-in comes, the server is drained |
//! | `release` | the way out: the server is back |
//! | `holder` | the stand-in: keeps connections, then passes them on |

mod admin;
mod hold;
mod holder;
mod release;
mod stages;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub(crate) use holder::run as hold_connections;
pub(crate) use stages::run;

use admin::{Name, Socket};

/// What the hook is told in the settings.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// HAProxy's admin socket: a path, or ipv4@HOST:PORT. Whoever reaches it commands HAProxy: keep it from others
    #[arg(long, value_name = "SOCKET")]
    socket: Socket,
    /// The backend
    #[arg(long)]
    backend: Name,
    /// The server in it that moves
    #[arg(long)]
    server: Name,
    /// Where HAProxy finds the application when it is on this host
    #[arg(long, value_name = "IP:PORT")]
    address: SocketAddr,
    /// An address of this host that HAProxy can reach, for the connections that wait [default: as this host reaches HAProxy]
    #[arg(long, value_name = "IP")]
    hold_address: Option<IpAddr>,
    /// The port for the connections that wait [default: any]
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    hold_port: u16,
    /// What the server's line in HAProxy's configuration says besides, such as "ssl verify none"
    #[arg(long, value_name = "WORDS", default_value = "", allow_hyphen_values = true)]
    server_options: Words,
    /// How long requests under way may take to end, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    drain: u64,
    /// How long connections are kept at most, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    hold: u64,
}

/// Words of HAProxy's language, without what would end a command.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Words(String);

impl std::str::FromStr for Words {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains([';', '\\', '#']) || text.chars().any(char::is_control) {
            return Err("the characters ; \\ # and line breaks are not possible here".into());
        }
        Ok(Self(text.trim().to_owned()))
    }
}

impl Arguments {
    fn drain(&self) -> Duration {
        Duration::from_secs(self.drain)
    }

    /// The stand-in's name, one for each server.
    fn stand_in(&self) -> Name {
        self.server.prefixed("fastmig-hold-")
    }
}

/// Why HAProxy could not be brought to what was wanted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HaproxyError {
    /// Nobody answers at the admin socket.
    #[error("cannot speak to HAProxy at {socket}: does it run, and has its configuration `stats socket ... level admin`?")]
    Unreachable {
        /// Where.
        socket: Socket,
        /// What the system said.
        source: io::Error,
    },
    /// HAProxy refused.
    #[error("HAProxy refused `{command}`: {answer}")]
    Refused {
        /// What it was told.
        command: String,
        /// What it said.
        answer: String,
    },
    /// An answer makes no sense.
    #[error("HAProxy's answer to `{command}` has no {missing}: is it older than 2.6?")]
    Unreadable {
        /// What it was asked.
        command: String,
        /// What is not in it.
        missing: &'static str,
    },
    /// No such server.
    #[error("HAProxy has no server {backend}/{server}: mend --backend or --server")]
    NoServer {
        /// The backend.
        backend: Name,
        /// The server.
        server: Name,
    },
    /// The server is not the application of this host.
    #[error("HAProxy has {backend}/{server} at {there}, not at {here}: the application of this host does not serve it, or --address is wrong")]
    Elsewhere {
        /// The backend.
        backend: Name,
        /// The server.
        server: Name,
        /// Where HAProxy looks for it.
        there: String,
        /// Where it should.
        here: SocketAddr,
    },
    /// Requests take too long.
    #[error("{requests} requests to {backend}/{server} had not ended after {seconds} s: give --drain more time, or try when there are fewer")]
    NotDrained {
        /// How many are left.
        requests: u64,
        /// The backend.
        backend: Name,
        /// The server.
        server: Name,
        /// How long was waited.
        seconds: u64,
    },
    /// The stand-in could not be made.
    #[error("cannot {action} for the connections that are to wait")]
    StandIn {
        /// What failed.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}
