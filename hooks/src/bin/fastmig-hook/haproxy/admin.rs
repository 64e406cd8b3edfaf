//! HAProxy's runtime API: one command on each connection, its answer until the end of it.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::HaproxyError;

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// More than any answer has.
const LONGEST_ANSWER: u64 = 8 << 20;

/// Where HAProxy listens for commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Socket {
    /// A unix socket on this host.
    Path(PathBuf),
    /// A TCP socket.
    Tcp(String),
}

impl FromStr for Socket {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix("unix@").unwrap_or(text);
        if path.starts_with('/') {
            return Ok(Self::Path(path.into()));
        }
        let tcp = ["ipv4@", "ipv6@", "tcp@"].iter().find_map(|kind| text.strip_prefix(kind)).unwrap_or(text);
        match tcp.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self::Tcp(tcp.into()))
            }
            _ => Err("give an absolute path, or ipv4@HOST:PORT".into()),
        }
    }
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

impl Socket {
    fn converse(&self, command: &str) -> io::Result<String> {
        match self {
            Self::Path(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(LIMIT))?;
                stream.set_write_timeout(Some(LIMIT))?;
                exchange(stream, command)
            }
            Self::Tcp(address) => {
                let stream = TcpStream::connect_timeout(&resolve(address)?, LIMIT)?;
                stream.set_read_timeout(Some(LIMIT))?;
                stream.set_write_timeout(Some(LIMIT))?;
                exchange(stream, command)
            }
        }
    }

    /// The address of this host that HAProxy sees.
    pub(super) fn own_address(&self) -> io::Result<IpAddr> {
        match self {
            Self::Path(_) => Ok(IpAddr::from([127, 0, 0, 1])),
            Self::Tcp(address) => {
                let there = resolve(address)?;
                let any: IpAddr = if there.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
                // Nothing is sent: the kernel only chooses a route.
                let probe = UdpSocket::bind((any, 0))?;
                probe.connect(there)?;
                Ok(probe.local_addr()?.ip())
            }
        }
    }
}

fn resolve(address: &str) -> io::Result<SocketAddr> {
    let mut found = address.to_socket_addrs()?;
    found.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{address} has no address")))
}

fn exchange(mut stream: impl Read + Write, command: &str) -> io::Result<String> {
    stream.write_all(command.as_bytes())?;
    stream.write_all(b"\n")?;
    let mut answer = String::new();
    stream.take(LONGEST_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}

/// The name of a backend or server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name(String);

impl Name {
    /// The same with `prefix` before it.
    pub(super) fn prefixed(&self, prefix: &str) -> Self {
        Self(format!("{prefix}{}", self.0))
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
        if text.is_empty() || text.len() > 64 || !text.chars().all(allowed) {
            return Err("names in HAProxy have letters, digits and _ . : - only, here at most 64".into());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One server of a backend, as HAProxy sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) name: String,
    /// `-` where a name has not been resolved yet.
    pub(super) address: String,
    pub(super) port: String,
    is_up: bool,
    admin: u32,
}

/// Bits of the administrative state: maintenance, of whatever origin; draining.
const MAINTENANCE: u32 = 0x01 | 0x02 | 0x04 | 0x20;
const DRAINING: u32 = 0x08 | 0x10;

impl Server {
    /// Whether it gets requests.
    pub(super) fn is_usable(&self) -> bool {
        self.is_up && self.admin & (MAINTENANCE | DRAINING) == 0
    }

    /// Whether it has been taken out by hand.
    pub(super) fn is_in_maintenance(&self) -> bool {
        self.admin & MAINTENANCE != 0
    }

    /// Where it is; nothing when HAProxy does not know.
    pub(super) fn socket_address(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.address.parse().ok()?, self.port.parse().ok()?))
    }
}

/// A backend of a HAProxy.
#[derive(Debug, Clone)]
pub(super) struct Backend<'a> {
    pub(super) socket: &'a Socket,
    pub(super) name: &'a Name,
}

impl Backend<'_> {
    fn ask(&self, command: &str) -> Result<String, HaproxyError> {
        self.socket
            .converse(command)
            .map_err(|source| HaproxyError::Unreachable { socket: self.socket.clone(), source })
    }

    /// A command that is answered by nothing, or by one of `good` words.
    fn tell(&self, command: &str, good: &[&str]) -> Result<(), HaproxyError> {
        let answer = self.ask(command)?;
        let answer = answer.trim();
        if answer.is_empty() || good.iter().any(|good| answer.contains(good)) {
            return Ok(());
        }
        Err(HaproxyError::Refused { command: command.into(), answer: answer.replace('\n', " | ") })
    }

    /// All its servers.
    pub(super) fn servers(&self) -> Result<Vec<Server>, HaproxyError> {
        let command = format!("show servers state {}", self.name);
        let answer = self.ask(&command)?;
        servers_in(&answer).ok_or(HaproxyError::Unreadable { command, missing: "table of servers" })
    }

    /// One server; nothing when there is none of that name.
    pub(super) fn server(&self, name: &Name) -> Result<Option<Server>, HaproxyError> {
        Ok(self.servers()?.into_iter().find(|server| server.name == name.0))
    }

    /// How many requests a server is at work on or has waiting.
    pub(super) fn requests(&self, server: &Name) -> Result<u64, HaproxyError> {
        let command = format!("show stat {} 4 -1", self.name);
        let answer = self.ask(&command)?;
        requests_in(&answer, &server.0)
            .ok_or(HaproxyError::Unreadable { command, missing: "count of requests" })
    }

    /// Gives a server requests again.
    pub(super) fn set_ready(&self, server: &Name) -> Result<(), HaproxyError> {
        self.tell(&format!("set server {}/{server} state ready", self.name), &[])
    }

    /// Gives a server no new requests; those that it has go on.
    pub(super) fn set_maintenance(&self, server: &Name) -> Result<(), HaproxyError> {
        self.tell(&format!("set server {}/{server} state maint", self.name), &[])
    }

    /// Lets a server be at `address`.
    pub(super) fn set_address(&self, server: &Name, address: SocketAddr) -> Result<(), HaproxyError> {
        let (ip, port) = (address.ip(), address.port());
        let command = format!("set server {}/{server} addr {ip} port {port}", self.name);
        self.tell(&command, &["changed from", "no need to change", "nothing changed"])
    }

    /// Makes a new server, in maintenance.
    pub(super) fn add(&self, server: &Name, address: SocketAddr, options: &str) -> Result<(), HaproxyError> {
        let command = format!("add server {}/{server} {address} {options}", self.name);
        self.tell(command.trim_end(), &["New server registered"])
    }

    /// Removes a server that [`Backend::add`] made.
    pub(super) fn remove(&self, server: &Name) -> Result<(), HaproxyError> {
        self.tell(&format!("del server {}/{server}", self.name), &["Server deleted"])
    }
}

fn servers_in(answer: &str) -> Option<Vec<Server>> {
    let mut lines = answer.lines().skip_while(|line| !line.starts_with("# "));
    let header: Vec<&str> = lines.next()?.trim_start_matches("# ").split(' ').collect();
    let column = |name: &str| header.iter().position(|word| *word == name);
    let (name, address, port) = (column("srv_name")?, column("srv_addr")?, column("srv_port")?);
    let (state, admin) = (column("srv_op_state")?, column("srv_admin_state")?);
    let rows = lines.map(|line| line.split(' ').collect::<Vec<_>>()).filter(|row| row.len() > 1);
    rows.map(|row| {
        let field = |at: usize| row.get(at).map(|word| (*word).to_owned());
        Some(Server {
            name: field(name)?,
            address: field(address)?,
            port: field(port)?,
            is_up: field(state)? == "2",
            admin: field(admin)?.parse().ok()?,
        })
    })
    .collect()
}

fn requests_in(answer: &str, server: &str) -> Option<u64> {
    let mut lines = answer.lines();
    let header: Vec<&str> = lines.next()?.trim_start_matches("# ").split(',').collect();
    let column = |name: &str| header.iter().position(|word| *word == name);
    let (name, current, queued) = (column("svname")?, column("scur")?, column("qcur")?);
    let row: Vec<&str> =
        lines.map(|line| line.split(',').collect::<Vec<_>>()).find(|row| row.get(name) == Some(&server))?;
    let number = |at: usize| row.get(at)?.parse::<u64>().ok();
    Some(number(current)? + number(queued).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight \
        srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state \
        srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord\n\
        3 web 1 web 10.99.0.1 2 0 1 1 5 1 0 0 0 0 0 0 - 80 -\n\
        3 web 2 old 10.99.0.2 0 1 1 1 5 1 0 0 14 0 0 0 - 8080 -\n\n";

    #[test]
    fn servers_are_read_by_the_names_of_their_columns() {
        let servers = servers_in(STATE).unwrap();
        assert_eq!(servers[0].socket_address(), Some("10.99.0.1:80".parse().unwrap()));
        assert!(servers[0].is_usable() && !servers[0].is_in_maintenance());
        assert!(!servers[1].is_usable() && servers[1].is_in_maintenance());
        assert_eq!(servers_in("Can't find backend.\n"), None);
    }

    #[test]
    fn requests_are_those_at_work_and_those_that_wait() {
        let text = "# pxname,svname,qcur,qmax,scur,smax,\nweb,web,2,0,5,9,\nweb,b,,,1,1,\n";
        assert_eq!(requests_in(text, "web"), Some(7));
        assert_eq!(requests_in(text, "b"), Some(1));
        assert_eq!(requests_in(text, "c"), None);
    }

    #[test]
    fn sockets_have_the_forms_of_haproxys_own_configuration() {
        for (text, shown) in [
            ("/run/haproxy/admin.sock", "/run/haproxy/admin.sock"),
            ("unix@/run/h.sock", "/run/h.sock"),
            ("ipv4@10.0.0.3:9999", "10.0.0.3:9999"),
            ("lb.example:9999", "lb.example:9999"),
        ] {
            assert_eq!(text.parse::<Socket>().unwrap().to_string(), shown);
        }
        for text in ["", "run/h.sock", "10.0.0.3", ":99", "a:port"] {
            assert!(text.parse::<Socket>().is_err(), "{text}");
        }
    }

    #[test]
    fn no_name_holds_a_second_command() {
        for text in ["", "a b", "a;b", "a\nb", "a/b"] {
            assert!(text.parse::<Name>().is_err(), "{text:?}");
        }
        assert_eq!("web_1.x".parse::<Name>().unwrap().prefixed("h-").to_string(), "h-web_1.x");
    }
}
