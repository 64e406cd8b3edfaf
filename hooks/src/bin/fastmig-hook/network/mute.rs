//! An address that is neither heard nor seen: tables of nf_tables drop what is sent to it and from it, and the questions who
//! has it. So a socket can be restored on it while another host still has it.
//!
//! One table for each family, named after the address; they go as they came, whole.

use std::io;
use std::net::IpAddr;

use nix::sys::socket::SockProtocol;

use super::netlink::{attribute, exchange, nested, number, text, Message};
use super::{Address, Device, NetworkError};

// linux/netfilter.h
const INET: u8 = 1;
const ARP: u8 = 3;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const INET_IN: u32 = 1;
const INET_OUT: u32 = 3;
const ARP_IN: u32 = 0;
const ARP_OUT: u32 = 1;
const DROP: u32 = 0;

// linux/netfilter/nfnetlink.h
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NFTABLES: u16 = 10;

// linux/netfilter/nf_tables.h
const NEW_TABLE: u16 = NFTABLES << 8;
const DELETE_TABLE: u16 = NFTABLES << 8 | 2;
const NEW_CHAIN: u16 = NFTABLES << 8 | 3;
const NEW_RULE: u16 = NFTABLES << 8 | 6;
const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const REGISTER: u32 = 1;
const VERDICT: u32 = 0;
const NETWORK_HEADER: u32 = 1;
const META_PROTOCOL_FAMILY: u32 = 15;

/// Before every other chain, CRIU's included.
const PRIORITY: i32 = -400;

/// Makes the address mute.
pub(super) fn mute(address: Address, device: &Device) -> Result<(), NetworkError> {
    let tables = tables(address);
    let messages: Vec<Message> = tables.iter().flat_map(Table::creation).collect();
    batch(messages).map_err(failed("mute", address, device))
}

/// Lets the address be heard again. That it is not mute is no error.
pub(super) fn unmute(address: Address, device: &Device) -> Result<(), NetworkError> {
    for table in tables(address) {
        match batch(vec![table.deletion()]) {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
            result => result.map_err(failed("unmute", address, device))?,
        }
    }
    Ok(())
}

fn failed<'a>(
    action: &'static str,
    address: Address,
    device: &'a Device,
) -> impl Fn(io::Error) -> NetworkError + 'a {
    move |source| NetworkError::Kernel { action, address, device: device.clone(), source }
}

/// What one family of packets has to do with the address.
struct Table {
    family: u8,
    name: String,
    /// Where packets come by, and those that are dropped there.
    chains: Vec<(&'static str, u32, Vec<Rule>)>,
}

/// Bytes of a packet's network header that mean the address, by their offsets.
struct Rule {
    /// Of a table for both families, which one.
    family: Option<u8>,
    matches: Vec<(u32, Vec<u8>)>,
}

fn tables(address: Address) -> Vec<Table> {
    // nft takes no colons in names.
    let name = format!("fastmig-{}", address.ip).replace(':', "-");
    let bytes = address.bytes();
    let rule = |family, at| Rule { family: Some(family), matches: vec![(at, bytes.clone())] };
    let inet = |incoming, outgoing| Table {
        family: INET,
        name: name.clone(),
        chains: vec![("in", INET_IN, incoming), ("out", INET_OUT, outgoing)],
    };
    match address.ip {
        IpAddr::V4(_) => {
            // The sender's and the target's address in an ARP packet of Ethernet and IPv4.
            let arp = |at| vec![Rule { family: None, matches: vec![(at, bytes.clone())] }];
            let chains = vec![("in", ARP_IN, arp(24)), ("out", ARP_OUT, arp(14))];
            vec![
                Table { family: ARP, name: name.clone(), chains },
                inet(vec![rule(IPV4, 16)], vec![rule(IPV4, 12)]),
            ]
        }
        IpAddr::V6(_) => {
            // A neighbour solicitation (ICMPv6, type 135) for the address.
            let matches = vec![(6, vec![58]), (40, vec![135]), (48, bytes.clone())];
            let solicitation = Rule { family: Some(IPV6), matches };
            vec![inet(vec![rule(IPV6, 24), solicitation], vec![rule(IPV6, 8)])]
        }
    }
}

impl Table {
    /// Anew, whatever was there under that name.
    fn creation(&self) -> Vec<Message> {
        let new = self.table(NEW_TABLE).creating();
        let mut messages = vec![new.clone(), self.deletion(), new];
        for (name, hook, rules) in &self.chains {
            let place = [number(HOOK_NUMBER, *hook), attribute(HOOK_PRIORITY, &PRIORITY.to_be_bytes())];
            messages.push(
                self.message(NEW_CHAIN, &[text(CHAIN_TABLE, &self.name), text(CHAIN_NAME, name)])
                    .with_nested(CHAIN_HOOK, &place)
                    .with(CHAIN_TYPE, b"filter\0")
                    .creating(),
            );
            for rule in rules {
                messages.push(
                    self.message(NEW_RULE, &[text(RULE_TABLE, &self.name), text(RULE_CHAIN, name)])
                        .with_nested(RULE_EXPRESSIONS, &rule.expressions())
                        .creating(),
                );
            }
        }
        messages
    }

    fn deletion(&self) -> Message {
        self.table(DELETE_TABLE)
    }

    fn table(&self, kind: u16) -> Message {
        self.message(kind, &[text(TABLE_NAME, &self.name)])
    }

    fn message(&self, kind: u16, attributes: &[Vec<u8>]) -> Message {
        let mut body = header(self.family, 0);
        body.extend(attributes.concat());
        Message::new(kind, body)
    }
}

impl Rule {
    /// Load and compare, for each match, then drop.
    fn expressions(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        if let Some(family) = self.family {
            all.push(expression("meta", &[number(2, META_PROTOCOL_FAMILY), number(1, REGISTER)]));
            all.push(equal(&[family]));
        }
        for (offset, bytes) in &self.matches {
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let load =
                [number(1, REGISTER), number(2, NETWORK_HEADER), number(3, *offset), number(4, length)];
            all.push(expression("payload", &load));
            all.push(equal(bytes));
        }
        let verdict = nested(2, &[nested(2, &[number(1, DROP)])]);
        all.push(expression("immediate", &[number(1, VERDICT), verdict]));
        all
    }
}

fn equal(bytes: &[u8]) -> Vec<u8> {
    expression("cmp", &[number(1, REGISTER), number(2, 0), nested(3, &[attribute(1, bytes)])])
}

fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    nested(LIST_ELEMENT, &[text(EXPRESSION_NAME, name), nested(EXPRESSION_DATA, data)])
}

/// The header of a netfilter message.
fn header(family: u8, resource: u16) -> Vec<u8> {
    [&[family, 0][..], &resource.to_be_bytes()].concat()
}

/// All or nothing.
fn batch(messages: Vec<Message>) -> io::Result<()> {
    let mut all = vec![Message::mark(BATCH_BEGIN, header(0, NFTABLES))];
    all.extend(messages);
    all.push(Message::mark(BATCH_END, header(0, NFTABLES)));
    exchange(SockProtocol::NetlinkNetFilter, &all)
}
