//! The lock that CRIU puts on established connections which are to live on: an nftables table that drops their
//! packets, so that the end of the dumped sockets is not heard by their peers. CRIU takes it away again when it
//! restores them in the same network namespace; in every other case it is for us to do.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::sched::{setns, CloneFlags};
use nix::sys::socket::{recv, send, socket, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};

/// CRIU writes the name into 32 bytes, together with its family.
const LONGEST: usize = 31 - FAMILY.len();
const FAMILY: &str = "inet ";

// linux/netfilter/nfnetlink.h and nf_tables.h
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NFTABLES: u16 = 10;
const DELETE_TABLE: u16 = NFTABLES << 8 | 2;
const TABLE_NAME: u16 = 1;
const FAMILY_INET: u8 = 1;
// linux/netlink.h
const REQUEST: u16 = 1;
const REQUEST_ACK: u16 = 1 | 4;
const ERROR: u16 = 2;

/// The name of the table that the dump with this log has made.
pub(crate) fn name(log: &Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    name_in(&text)
}

fn name_in(log: &str) -> Option<String> {
    let id = log.lines().filter_map(|line| line.split_once("CRIU run id = ")).next_back()?.1;
    Some(format!("CRIU-{id}").chars().take(LONGEST).collect())
}

/// Removes the table from the network namespace of process `pid`; that it is gone already is no error.
pub(crate) fn release(pid: i32, table: &str) -> io::Result<()> {
    let namespace = File::open(Path::new("/proc").join(pid.to_string()).join("ns/net"))?;
    let messages = deletion(table);
    // A thread of its own, for it does not come back from that namespace.
    let thread = std::thread::Builder::new().name("network-lock".into()).spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        exchange(&messages)
    })?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the releasing thread panicked")))
}

fn exchange(messages: &[u8]) -> io::Result<()> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    send(netlink.as_raw_fd(), messages, MsgFlags::empty())?;
    let mut buffer = [0; 4096];
    let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
    match answer(&buffer[..length]) {
        Some(0) => Ok(()),
        Some(errno) if -errno == libc::ENOENT => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The error number in an acknowledgement, 0 for success.
fn answer(message: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    let errno = i32::from_ne_bytes(message.get(16..20)?.try_into().ok()?);
    (kind == ERROR).then_some(errno)
}

/// One batch that deletes one table.
fn deletion(table: &str) -> Vec<u8> {
    let mut name = table.as_bytes().to_vec();
    name.push(0);
    let length = u16::try_from(4 + name.len()).unwrap_or(u16::MAX);
    let mut attribute = [length.to_ne_bytes(), TABLE_NAME.to_ne_bytes()].concat();
    attribute.extend(name);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    let batch = |kind| message(kind, REQUEST, 0, NFTABLES.to_be_bytes(), &[]);
    [
        batch(BATCH_BEGIN),
        message(DELETE_TABLE, REQUEST_ACK, FAMILY_INET, [0, 0], &attribute),
        batch(BATCH_END),
    ]
    .concat()
}

/// A netlink header, a netfilter header, a payload.
fn message(kind: u16, flags: u16, family: u8, resource: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + 4 + payload.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(1_u32.to_ne_bytes()); // sequence
    bytes.extend(0_u32.to_ne_bytes()); // to the kernel
    bytes.extend([family, 0]);
    bytes.extend(resource);
    bytes.extend(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_cut_as_criu_cuts_it() {
        let log = "(00.0) CRIU run id = aaaa\n(00.1) CRIU run id = 9a33fff4-224e-4f99-af12-000000000000\n";
        assert_eq!(name_in(log).unwrap(), "CRIU-9a33fff4-224e-4f99-af");
        assert_eq!(name_in("nothing"), None);
    }

    #[test]
    fn a_batch_is_whole_words() {
        for name in ["a", "ab", "abc", "abcd"] {
            assert_eq!(deletion(name).len() % 4, 0, "{name}");
        }
    }

    #[test]
    fn an_answer_is_read() {
        let mut bytes = [36_u32.to_ne_bytes().to_vec(), ERROR.to_ne_bytes().to_vec(), vec![0; 10]].concat();
        bytes.extend((-2_i32).to_ne_bytes());
        assert_eq!(answer(&bytes), Some(-2));
        assert_eq!(answer(&bytes[..10]), None);
    }

    #[test]
    fn a_table_that_is_not_there_is_no_error() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let me = i32::try_from(std::process::id()).unwrap();
        match release(me, "CRIU-fastmig-test") {
            Ok(()) => {}
            // A kernel without nftables has no locks either.
            Err(e) => assert_eq!(e.raw_os_error(), Some(libc::EPROTONOSUPPORT), "{e}"),
        }
    }
}
