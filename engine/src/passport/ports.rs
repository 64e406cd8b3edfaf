//! The addresses and ports that the application listens on, against those of the destination's network.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use procfs::net::TcpState;
use procfs::process::{FDTarget, Process};
use serde::{Deserialize, Serialize};

use super::{Reasons, Source};
use crate::start_options::TcpPolicy;
use crate::Container;

/// More than there are.
const MOST: usize = 1 << 18;

/// What the application's sockets hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ports {
    held: BTreeSet<(Protocol, SocketAddr)>,
    /// The addresses move along with the application.
    addresses_move: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

impl Ports {
    pub(super) fn of(source: &Source<'_>) -> Self {
        let sockets: BTreeSet<u64> = source.processes.iter().flat_map(|&pid| sockets_of(pid)).collect();
        let all = held_in_network_of(source.container.pid());
        let held = all.into_iter().filter(|(inode, ..)| sockets.contains(inode));
        Self {
            held: held.map(|(_, protocol, address)| (protocol, address)).collect(),
            addresses_move: source.tcp == TcpPolicy::Keep,
        }
    }

    pub(super) fn is_excessive(&self) -> bool {
        self.held.len() > MOST
    }

    pub(super) fn check(&self, container: &Container, reasons: &mut Reasons) {
        let here: Vec<_> = held_in_network_of(container.pid());
        let addresses = addresses_in_network_of(container.pid());
        for (protocol, address) in &self.held {
            let taken = here.iter().any(|(_, other, taken)| other == protocol && collide(*address, *taken));
            if taken {
                reasons.add(
                    format!(
                        "{} port {} is taken in the container's network",
                        protocol.name(),
                        address.port()
                    ),
                    "end what listens there, or give the container a network of its own",
                );
            }
            let ip = address.ip();
            if !self.addresses_move && !ip.is_unspecified() && !ip.is_loopback() && !addresses.contains(&ip) {
                reasons.add(
                    format!("the application listens on {ip}, an address that the container does not have"),
                    "let the address move along (--tcp keep, with the network move), or listen on all addresses",
                );
            }
        }
    }
}

/// Whether the kernel lets only one of them be held.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let all = |address: SocketAddr| address.ip().is_unspecified();
    let overlap = match (one, other) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) | (SocketAddr::V6(_), SocketAddr::V6(_)) => {
            one.ip() == other.ip() || all(one) || all(other)
        }
        (SocketAddr::V4(_), SocketAddr::V6(_)) => all(other),
        (SocketAddr::V6(_), SocketAddr::V4(_)) => all(one),
    };
    one.port() == other.port() && overlap
}

fn sockets_of(pid: i32) -> Vec<u64> {
    let descriptors = Process::new(pid).and_then(|process| process.fd());
    let targets = descriptors.into_iter().flatten().flatten().map(|descriptor| descriptor.target);
    let inodes = targets.filter_map(|target| match target {
        FDTarget::Socket(inode) => Some(inode),
        _ => None,
    });
    inodes.collect()
}

/// Inode, protocol and address of every socket in the network of process `pid` that holds a port for itself.
fn held_in_network_of(pid: i32) -> Vec<(u64, Protocol, SocketAddr)> {
    let Ok(process) = Process::new(pid) else { return Vec::new() };
    let tcp = [process.tcp(), process.tcp6()].into_iter().flatten().flatten();
    let udp = [process.udp(), process.udp6()].into_iter().flatten().flatten();
    let listening = tcp.filter(|socket| socket.state == TcpState::Listen);
    let tcp = listening.map(|socket| (socket.inode, Protocol::Tcp, socket.local_address));
    let bound = udp.filter(|socket| socket.remote_address.port() == 0);
    tcp.chain(bound.map(|socket| (socket.inode, Protocol::Udp, socket.local_address))).collect()
}

/// The addresses that the network of process `pid` has.
fn addresses_in_network_of(pid: i32) -> BTreeSet<IpAddr> {
    let read = |name| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    let (routes, six) = (read("fib_trie"), read("if_inet6"));
    v4_addresses(&routes).map(IpAddr::V4).chain(v6_addresses(&six).map(IpAddr::V6)).collect()
}

/// The kernel's table of routes has each address of its own, marked so in the line that follows.
fn v4_addresses(routes: &str) -> impl Iterator<Item = Ipv4Addr> + '_ {
    routes.lines().zip(routes.lines().skip(1)).filter_map(|(line, next)| {
        let address = line.trim_start().strip_prefix("|-- ")?;
        next.contains("host LOCAL").then(|| address.trim().parse().ok()).flatten()
    })
}

fn v6_addresses(text: &str) -> impl Iterator<Item = Ipv6Addr> + '_ {
    let digits = text.lines().filter_map(|line| line.split_whitespace().next());
    digits.filter_map(|digits| u128::from_str_radix(digits, 16).ok().map(Ipv6Addr::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_collide_as_in_the_kernel() {
        let collides = |one: &str, other: &str| collide(one.parse().unwrap(), other.parse().unwrap());
        assert!(collides("0.0.0.0:80", "10.0.0.1:80"));
        assert!(collides("10.0.0.1:80", "10.0.0.1:80"));
        assert!(collides("10.0.0.1:80", "[::]:80"));
        assert!(!collides("10.0.0.1:80", "10.0.0.2:80"));
        assert!(!collides("0.0.0.0:80", "0.0.0.0:81"));
        assert!(!collides("[::1]:80", "0.0.0.0:80"));
    }

    #[test]
    fn ones_own_sockets_and_addresses_are_found() {
        let me = i32::try_from(std::process::id()).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let held = held_in_network_of(me);
        let mine = sockets_of(me);
        for (protocol, address) in [
            (Protocol::Tcp, listener.local_addr().unwrap()),
            (Protocol::Udp, datagrams.local_addr().unwrap()),
        ] {
            let found = held.iter().find(|(_, kind, held)| (*kind, *held) == (protocol, address));
            assert!(found.is_some_and(|(inode, ..)| mine.contains(inode)), "{protocol:?}");
        }
        assert!(addresses_in_network_of(me).contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }

    #[test]
    fn only_addresses_of_ones_own_count() {
        let routes = "Local:\n  +-- 10.0.0.0/24 2 0 2\n     |-- 10.0.0.0\n        /24 link UNICAST\n     |-- 10.0.0.7\n        /32 host LOCAL\n";
        assert_eq!(v4_addresses(routes).collect::<Vec<_>>(), [Ipv4Addr::new(10, 0, 0, 7)]);
        let six = "fe800000000000000000000000000001 02 40 20 80 eth0\n";
        assert_eq!(v6_addresses(six).collect::<Vec<_>>(), ["fe80::1".parse::<Ipv6Addr>().unwrap()]);
    }
}
