//! The network learns who has an address now: gratuitous ARP, or an unsolicited neighbour advertisement.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{sendto, socket, AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType};

use super::{Address, Device, NetworkError};

/// A single frame may be lost.
const TIMES: u32 = 3;
const BETWEEN: Duration = Duration::from_millis(30);

type Mac = [u8; 6];

/// Tells everybody on the device's network.
pub(super) fn announce(address: Address, device: &Device) -> Result<(), NetworkError> {
    let failed =
        |source| NetworkError::Kernel { action: "announce", address, device: device.clone(), source };
    let link = link(device).map_err(failed)?;
    // A device without hardware addresses has nobody to tell.
    let Some(mac) = link.as_ref().and_then(LinkAddr::addr).filter(|mac| *mac != [0; 6]) else {
        return Ok(());
    };
    let frames = match address.ip {
        IpAddr::V4(ip) => arp(mac, ip),
        IpAddr::V6(ip) => vec![advertisement(mac, ip)],
    };
    let send = || -> io::Result<()> {
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
        for time in 0..TIMES {
            if time > 0 {
                sleep(BETWEEN);
            }
            for frame in &frames {
                sendto(socket.as_raw_fd(), frame, &link.ok_or(io::ErrorKind::NotFound)?, MsgFlags::empty())?;
            }
        }
        Ok(())
    };
    send().map_err(failed)
}

fn link(device: &Device) -> io::Result<Option<LinkAddr>> {
    let mut entries = getifaddrs()?.filter(|entry| entry.interface_name == device.0);
    Ok(entries.find_map(|entry| entry.address?.as_link_addr().copied()))
}

/// As a question and as an answer: there are systems that hear only one of them.
fn arp(mac: Mac, ip: Ipv4Addr) -> Vec<Vec<u8>> {
    const ETHERNET_AND_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
    let frame = |operation: u8, target: Mac| {
        let mut frame = ethernet([0xff; 6], mac, 0x0806);
        frame.extend(ETHERNET_AND_IPV4);
        frame.extend([0, operation]);
        frame.extend(mac);
        frame.extend(ip.octets());
        frame.extend(target);
        frame.extend(ip.octets());
        frame
    };
    vec![frame(1, [0; 6]), frame(2, [0xff; 6])]
}

/// To all nodes of the link, overriding what they know.
fn advertisement(mac: Mac, ip: Ipv6Addr) -> Vec<u8> {
    const OVERRIDE: u32 = 0x2000_0000;
    const ICMP: u8 = 58;
    let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut message = vec![136, 0, 0, 0];
    message.extend(OVERRIDE.to_be_bytes());
    message.extend(ip.octets());
    message.extend([2, 1]); // the target's hardware address, in words of eight bytes
    message.extend(mac);
    let length = u16::try_from(message.len()).unwrap_or_default();
    let pseudo =
        [&ip.octets()[..], &to.octets(), &u32::from(length).to_be_bytes(), &[0, 0, 0, ICMP], &message]
            .concat();
    let sum = checksum(&pseudo);
    message[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut frame = ethernet([0x33, 0x33, 0, 0, 0, 1], mac, 0x86dd);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([ICMP, 255]);
    frame.extend(ip.octets());
    frame.extend(to.octets());
    frame.extend(message);
    frame
}

fn ethernet(to: Mac, from: Mac, kind: u16) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes()].concat()
}

/// The internet checksum.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 7];

    #[test]
    fn an_arp_frame_says_whose_the_address_is() {
        let ip = Ipv4Addr::new(10, 0, 0, 50);
        for (frame, operation) in arp(MAC, ip).iter().zip([1, 2]) {
            assert_eq!(frame.len(), 14 + 28);
            assert_eq!(frame[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 7, 8, 6]);
            assert_eq!(frame[20..22], [0, operation]);
            assert_eq!((&frame[22..28], &frame[28..32]), (&MAC[..], &ip.octets()[..]));
            assert_eq!(frame[38..42], ip.octets());
        }
    }

    #[test]
    fn an_advertisement_has_a_right_checksum() {
        let ip: Ipv6Addr = "2001:db8::50".parse().unwrap();
        let frame = advertisement(MAC, ip);
        assert_eq!(frame.len(), 14 + 40 + 32);
        let (header, message) = (&frame[14..54], &frame[54..]);
        // With the sum in its place, the sum over all is nothing.
        let pseudo = [&header[8..40], &32_u32.to_be_bytes()[..], &[0, 0, 0, 58], message].concat();
        assert_eq!(checksum(&pseudo), 0);
        assert_eq!((message[0], &message[8..24]), (136, &ip.octets()[..]));
    }
}
