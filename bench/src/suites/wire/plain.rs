//! Bytes over TCP, from the one host's network to the other's.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::{anyhow, Result};
use fastmig_tests::framework::Host;
use nix::sys::resource::{getrusage, UsageWho};

use super::Speed;
use crate::network;

const PORT: u16 = 7003;
const AT_ONCE: usize = 1 << 20;

/// Sends so many bytes by so many connections.
pub(super) fn measure([a, b]: [&Arc<Host>; 2], streams: usize, bytes: u64) -> Result<Speed> {
    let address: SocketAddr = format!("{}:{PORT}", b.address()).parse()?;
    let listener = network::within(b, move || Ok(TcpListener::bind(address)?))?;
    let each = bytes / streams as u64;
    let begun = Instant::now();
    let mut threads = Vec::new();
    for _ in 0..streams {
        let sender = network::within(a, move || Ok(TcpStream::connect(address)?))?;
        let (receiver, _) = listener.accept()?;
        threads.push(thread::spawn(move || send(sender, each)));
        threads.push(thread::spawn(move || receive(receiver)));
    }
    let mut processor = 0.0;
    for thread in threads {
        processor += thread.join().map_err(|_| anyhow!("a thread panicked"))??;
    }
    let rate = bytes as f64 / begun.elapsed().as_secs_f64();
    Ok(Speed { rate, processor: processor / bytes as f64 * 1e9 })
}

fn send(mut stream: TcpStream, bytes: u64) -> Result<f64> {
    let content = vec![1; AT_ONCE];
    let mut left = bytes;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(AT_ONCE).min(AT_ONCE);
        stream.write_all(&content[..now])?;
        left -= now as u64;
    }
    drop(stream);
    used()
}

fn receive(mut stream: TcpStream) -> Result<f64> {
    let mut content = vec![0; AT_ONCE];
    while stream.read(&mut content)? > 0 {}
    used()
}

/// Processor seconds of this thread.
fn used() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}
