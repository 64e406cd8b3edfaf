//! An address on a device: there, or not.

use std::fs;
use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{SockProtocol, SockaddrStorage};

use super::netlink::{exchange, Message};
use super::{Address, Device, NetworkError};

// linux/rtnetlink.h, linux/if_addr.h
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const FLAGS: u16 = 8;
/// IPv6 asks the network first whether an address is taken; this one still is.
const NO_DUPLICATE_DETECTION: u32 = 0x02;

/// Fails when the address could not leave without harm.
pub(super) fn require_movable(address: Address, device: &Device) -> Result<(), NetworkError> {
    index(device)?;
    let all = addresses(device).map_err(failed("look for", address, device))?;
    if !all.contains(&address.ip) {
        return Err(NetworkError::NotHere { address, device: device.clone() });
    }
    let is_only = all.iter().filter(|ip| ip.is_ipv4() == address.ip.is_ipv4()).count() == 1;
    // The last IPv4 address takes the device's routes along; IPv6 has one of its own for the link.
    if is_only && address.ip.is_ipv4() {
        return Err(NetworkError::OnlyOne { address, device: device.clone() });
    }
    Ok(())
}

/// Adds the address. That it is there already is no error.
pub(super) fn add(address: Address, device: &Device) -> Result<(), NetworkError> {
    let flags = if address.ip.is_ipv6() { NO_DUPLICATE_DETECTION } else { 0 };
    let message =
        message(NEW_ADDRESS, address, device)?.with(FLAGS, &flags.to_ne_bytes()).creating().exclusive();
    match exchange(SockProtocol::NetlinkRoute, &[message]) {
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        result => result.map_err(failed("add", address, device)),
    }
}

/// Removes the address. That it is gone already is no error.
pub(super) fn remove(address: Address, device: &Device) -> Result<(), NetworkError> {
    let message = message(DELETE_ADDRESS, address, device)?;
    let _others = OthersStay::on(device);
    match exchange(SockProtocol::NetlinkRoute, &[message]) {
        Err(e) if e.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
        result => result.map_err(failed("remove", address, device)),
    }
}

/// While this lives, the addresses of a device do not go with the one that was there before them.
struct OthersStay {
    setting: String,
    before: Option<String>,
}

impl OthersStay {
    fn on(device: &Device) -> Self {
        let setting = format!("/proc/sys/net/ipv4/conf/{device}/promote_secondaries");
        let before = fs::read_to_string(&setting).ok().filter(|value| value.trim() == "0");
        if before.is_some() {
            // Where it cannot be set, only an address that came first is a danger.
            let _ = fs::write(&setting, "1");
        }
        Self { setting, before }
    }
}

impl Drop for OthersStay {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = fs::write(&self.setting, before);
        }
    }
}

fn message(kind: u16, address: Address, device: &Device) -> Result<Message, NetworkError> {
    let family = if address.ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut header = vec![u8::try_from(family).unwrap_or_default(), address.prefix, 0, 0];
    header.extend(index(device)?.to_ne_bytes());
    let bytes = address.bytes();
    Ok(Message::new(kind, header).with(LOCAL, &bytes).with(ADDRESS, &bytes))
}

fn index(device: &Device) -> Result<u32, NetworkError> {
    if_nametoindex(device.0.as_str()).map_err(|_| NetworkError::NoDevice { device: device.clone() })
}

fn addresses(device: &Device) -> io::Result<Vec<IpAddr>> {
    let all = getifaddrs()?.filter(|entry| entry.interface_name == device.0);
    Ok(all.filter_map(|entry| ip(entry.address.as_ref()?)).collect())
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
}

fn failed<'a>(
    action: &'static str,
    address: Address,
    device: &'a Device,
) -> impl FnOnce(io::Error) -> NetworkError + 'a {
    move |source| NetworkError::Kernel { action, address, device: device.clone(), source }
}
