//! What is seen from inside a container's network.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use nix::ifaddrs::{getifaddrs, InterfaceAddress};
use nix::net::if_::InterfaceFlags;
use nix::sched::{setns, CloneFlags};
use nix::sys::socket::{SockaddrLike, SockaddrStorage};

/// Does `work` in the network namespace of process `pid`.
///
/// # Errors
/// When the process is gone or its namespace may not be entered; else what `work` fails with.
pub fn inside<T: Send + 'static>(
    pid: i32,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let namespace = File::open(Path::new("/proc").join(pid.to_string()).join("ns/net"))?;
    // A thread of its own, for it does not come back from that namespace.
    let thread = std::thread::Builder::new().name("network".into()).spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        work()
    })?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the container's network panicked")))
}

/// The addresses of the network namespace of `pid`, as `ADDRESS/PREFIX`, but those of the loopback device.
pub(crate) fn addresses(pid: i32) -> io::Result<Vec<String>> {
    inside(pid, || {
        let all = getifaddrs()?.filter(|entry| !entry.flags.contains(InterfaceFlags::IFF_LOOPBACK));
        Ok(all.filter_map(|entry| text(&entry)).collect())
    })
}

fn text(entry: &InterfaceAddress) -> Option<String> {
    let address = ip(entry.address.as_ref()?)?;
    let prefix = match ip(entry.netmask.as_ref()?)? {
        IpAddr::V4(mask) => mask.to_bits().leading_ones(),
        IpAddr::V6(mask) => mask.to_bits().leading_ones(),
    };
    Some(format!("{address}/{prefix}"))
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    match address.family()? {
        nix::sys::socket::AddressFamily::Inet => Some(address.as_sockaddr_in()?.ip().into()),
        nix::sys::socket::AddressFamily::Inet6 => Some(address.as_sockaddr_in6()?.ip().into()),
        _ => None,
    }
}
