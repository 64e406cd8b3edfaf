//! What the destination must know before the application stops.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::image::{Manifest, Stream};
use crate::start_options::TcpPolicy;

/// With it the destination's CRIU is started ahead of the freeze. The manifest that follows must say the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// CRIU's names of the files that are the container's standard streams.
    pub stdio: Vec<Stream>,
    /// Whether they are a terminal.
    pub terminal: bool,
    /// What becomes of established TCP connections.
    pub tcp: TcpPolicy,
    /// Whether unix sockets to the outside are allowed.
    pub external_unix_sockets: bool,
    /// Whether file locks are dumped.
    pub file_locks: bool,
}

impl Ticket {
    /// Whether `manifest` is of the same application, under the same terms.
    pub(crate) fn covers(&self, manifest: &Manifest) -> bool {
        *self == Self::of(manifest)
    }

    /// A peer's ticket ends on CRIU's command line: nothing is let through there but names of pipes, sockets and terminals.
    pub(crate) fn is_plausible(&self) -> bool {
        let numbers: BTreeSet<u8> = self.stdio.iter().map(|stream| stream.number).collect();
        numbers.len() == self.stdio.len()
            && numbers.iter().all(|number| *number < 3)
            && self.stdio.iter().all(|stream| is_name_of_stream(&stream.key))
    }

    pub(crate) fn of(manifest: &Manifest) -> Self {
        Self {
            stdio: manifest.stdio.clone(),
            terminal: manifest.terminal,
            tcp: manifest.tcp,
            external_unix_sockets: manifest.external_unix_sockets,
            file_locks: manifest.file_locks,
        }
    }
}

/// `pipe:[8]`, `socket:[9]`, `tty[8801:18]`
fn is_name_of_stream(key: &str) -> bool {
    let inside =
        ["pipe:[", "socket:[", "tty["].iter().find_map(|kind| key.strip_prefix(kind)?.strip_suffix(']'));
    inside.is_some_and(|numbers| {
        (1..=40).contains(&numbers.len()) && numbers.chars().all(|c| c.is_ascii_hexdigit() || c == ':')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(streams: &[(u8, &str)]) -> Ticket {
        let stdio =
            streams.iter().map(|(number, key)| Stream { number: *number, key: (*key).into() }).collect();
        let tcp = TcpPolicy::Close;
        Ticket { stdio, terminal: false, tcp, external_unix_sockets: true, file_locks: true }
    }

    #[test]
    fn only_streams_of_a_container_are_let_through() {
        assert!(ticket(&[(0, "pipe:[81]"), (1, "socket:[9]"), (2, "tty[8801:18]")]).is_plausible());
        assert!(ticket(&[]).is_plausible());
        for bad in
            ["etc/passwd", "pipe:[1]:x", "pipe:[]", "pipe:[x]", "tty[1", "extRootNetNS", "fd[1]:pipe:[1]"]
        {
            assert!(!ticket(&[(0, bad)]).is_plausible(), "{bad}");
        }
        assert!(!ticket(&[(3, "pipe:[1]")]).is_plausible());
        assert!(!ticket(&[(1, "pipe:[1]"), (1, "pipe:[2]")]).is_plausible());
    }
}
