//! A network move: the application's address goes to the destination, on the same network, and established connections with
//! it (checkpointed to be kept). The application has the address in its container's network, which may be the host's.
//!
//! ```text
//!   source                                   destination
//!   the address answers                      -
//!   post-checkpoint: removed                 pre-restore: added, but mute: neither heard nor seen on the network
//!   (aborted: added again, announced)        post-restore: no longer mute, announced   (aborted: removed)
//! ```
//!
//! From the removal to the announcement nobody has the address, so that nobody says a wrong word to its peers: what they
//! send is lost, and sent again. Every step may be done twice, and none leaves anything but in the kernel.
//!
//! | file | what it does |
//! |---|---|
//! | `stages` | what is to be done at which stage |
//! | `address` | an address on a device |
//! | `mute` | an address that is neither heard nor seen |
//! | `announce` | the network learns who has it now |
//! | `netlink` | messages to the kernel |

mod address;
mod announce;
mod mute;
mod netlink;
mod stages;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::str::FromStr;

pub(crate) use stages::run;

/// What the hook is told in the settings.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// The address that moves, with the length of its network's prefix
    #[arg(long, value_name = "ADDRESS/PREFIX")]
    address: Address,
    /// The device that has it, as the container sees it
    #[arg(long)]
    device: Device,
    /// The address is the host's, though the container has a network of its own
    #[arg(long)]
    on_host: bool,
}

/// An address and the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    ip: IpAddr,
    prefix: u8,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = || {
            let (ip, prefix) = text.split_once('/')?;
            let (ip, prefix): (IpAddr, u8) = (ip.parse().ok()?, prefix.parse().ok()?);
            let longest = if ip.is_ipv4() { 32 } else { 128 };
            let usable = !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast();
            (usable && (1..=longest).contains(&prefix)).then_some(Self { ip, prefix })
        };
        parsed().ok_or_else(|| "give an address as 10.0.0.50/24 or 2001:db8::50/64".into())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

impl Address {
    /// As it is on the wire.
    fn bytes(self) -> Vec<u8> {
        match self.ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        }
    }
}

/// The name of a network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device(String);

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |c: char| c == '/' || c.is_whitespace() || c.is_control();
        if text.is_empty() || text.len() > 15 || text.starts_with('.') || text.contains(wrong) {
            return Err("this is no name of a network device".into());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why the address could not be moved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    /// The container's network cannot be entered.
    #[error("cannot enter the network of process {pid}: has the container ended?")]
    Enter {
        /// Its PID 1.
        pid: i32,
        /// What the system said.
        source: io::Error,
    },
    /// The device is not there.
    #[error("there is no device {device} in the application's network: mend --device")]
    NoDevice {
        /// Its name.
        device: Device,
    },
    /// The address is not there.
    #[error("{device} has no address {address}, so it cannot move from here: mend --address or --device")]
    NotHere {
        /// The address.
        address: Address,
        /// The device.
        device: Device,
    },
    /// The device has no other address.
    #[error("{address} is the only address of {device}, whose routes would go with it: give {device} an address of its own")]
    OnlyOne {
        /// The address.
        address: Address,
        /// The device.
        device: Device,
    },
    /// The kernel refused.
    #[error("cannot {action} {address} on {device}")]
    Kernel {
        /// What was tried.
        action: &'static str,
        /// The address.
        address: Address,
        /// The device.
        device: Device,
        /// What the system said.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_prefix() {
        assert_eq!("10.0.0.50/24".parse::<Address>().unwrap().to_string(), "10.0.0.50/24");
        assert_eq!("2001:db8::50/64".parse::<Address>().unwrap().prefix, 64);
        for text in
            ["10.0.0.50", "10.0.0.50/33", "10.0.0.50/0", "0.0.0.0/8", "127.0.0.1/8", "ff02::1/64", "::1/129"]
        {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_device_is_a_name() {
        assert!("eth0".parse::<Device>().is_ok());
        for text in ["", "a/b", "../x", "a b", "0123456789abcdef"] {
            assert!(text.parse::<Device>().is_err(), "{text}");
        }
    }
}
