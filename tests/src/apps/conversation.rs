//! A server that counts, and a client that keeps one connection to it: whether that lives on, and nothing on it is lost.

use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::framework::Background;

const SOON: Duration = Duration::from_secs(30);

/// A python program that counts the lines of each connection, on port 7777.
pub const SERVER: &str = "
import socket, threading
def serve(c):
    for n, _ in enumerate(c.makefile('rb'), 1):
        c.sendall(b'%d\\n' % n)
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('0.0.0.0', 7777)); s.listen()
while True:
    threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
";

/// A python program that speaks to it at the address given, on one connection as long as that lives, and says what it heard.
pub const CLIENT: &str = "
import socket, sys, time
s = socket.create_connection((sys.argv[1], 7777), timeout=60)
f = s.makefile('rb')
try:
    while True:
        s.sendall(b'x\\n')
        line = f.readline()
        if not line: break
        print('heard', int(line), flush=True)
        time.sleep(0.02)
except OSError as e:
    print(e, flush=True)
print('closed', flush=True)
";

/// Fails unless the client's connection goes on from where it is, and no answer on it is lost or doubled.
pub fn require_alive(client: &mut Background) -> Result<()> {
    let before = *heard(client).last().context("the client heard nothing")?;
    client.wait_for_output(&format!("heard {}\n", before + 20), SOON)?;
    let heard = heard(client);
    ensure!(heard.iter().zip(1..).all(|(&n, i)| n == i), "an answer is lost or doubled: {heard:?}");
    Ok(())
}

fn heard(client: &Background) -> Vec<u64> {
    let text = String::from_utf8_lossy(&client.stdout()).into_owned();
    text.lines().filter_map(|line| line.strip_prefix("heard ")?.parse().ok()).collect()
}
