//! What a client sees of a program that moves: a datagram to both hosts each millisecond, and the longest time without an answer.
//! Datagrams leave nothing in the program that a checkpoint might refuse.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{sleep, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{anyhow, Result};
use fastmig_tests::framework::Host;

use crate::network;

const PAUSE: Duration = Duration::from_millis(1);
/// How long the last answer is waited for.
const LAST: Duration = Duration::from_secs(10);

/// A client at work.
#[derive(Debug)]
pub(crate) struct Outside {
    stopped: Arc<AtomicBool>,
    client: JoinHandle<Duration>,
}

impl Outside {
    /// Begins to ask the port of both hosts.
    pub(crate) fn start(hosts: [&Host; 2], port: u16) -> Result<Self> {
        let socket = network::within(hosts[0], || Ok(UdpSocket::bind("0.0.0.0:0")?))?;
        socket.set_nonblocking(true)?;
        let address =
            |host: &Host| Ok::<SocketAddr, anyhow::Error>(format!("{}:{port}", host.address()).parse()?);
        let addresses = [address(hosts[0])?, address(hosts[1])?];
        let stopped = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stopped);
        Ok(Self { stopped, client: std::thread::spawn(move || ask(&socket, &addresses, &until)) })
    }

    /// Waits for one more answer; the longest time without one.
    pub(crate) fn stop(self) -> Result<Duration> {
        self.stopped.store(true, Ordering::Relaxed);
        self.client.join().map_err(|_| anyhow!("the client panicked"))
    }
}

fn ask(socket: &UdpSocket, addresses: &[SocketAddr], stopped: &AtomicBool) -> Duration {
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    let mut content = [0; 8];
    loop {
        for address in addresses {
            // Nobody may be there, and a full queue is emptied soon.
            let _ = socket.send_to(&content, address);
        }
        sleep(PAUSE);
        let mut answered = false;
        while socket.recv_from(&mut content).is_ok() {
            answered = true;
        }
        if answered {
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        if stopped.load(Ordering::Relaxed) && (answered || last.elapsed() > LAST) {
            return longest.max(last.elapsed());
        }
    }
}
