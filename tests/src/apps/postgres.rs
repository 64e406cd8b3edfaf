//! PostgreSQL: a server of several processes with System V shared memory, its data files, a client that inserts rows, and
//! pgbench.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{ensure, Context, Result};
use serde_json::json;

use super::load::{Client, Traffic, Trouble};
use super::peer::{Connection, Peer};
use super::pgbench::{Pgbench, BOOKS, HANG_UP};
use super::{facts, App, Facts, START_LIMIT};
use crate::framework::process::wait_until;
use crate::framework::Host;

/// Rows before the first client comes.
const ROWS: u64 = 10_000;

/// Every row can be checked by itself.
const CREATE: &str = "CREATE TABLE rows (n bigint PRIMARY KEY, payload text NOT NULL); \
                      INSERT INTO rows SELECT n, md5(n::text) FROM generate_series(1, 10000) n";
const DAMAGED: &str = "SELECT count(*) FROM rows WHERE payload <> md5(n::text)";
const STARTED: &str = "SELECT pg_postmaster_start_time()";

/// An unmodified PostgreSQL.
#[derive(Debug, Default)]
pub(super) struct Postgres {
    rows: Arc<Mutex<Rows>>,
    started: String,
    pgbench: Option<Pgbench>,
    /// Memory that its processes share, in MiB, nearly all of which is filled; as it comes otherwise.
    buffers: Option<u32>,
}

impl Postgres {
    /// With so many MiB of shared buffers, and nearly all of them filled.
    pub(super) fn warm(buffers: u32) -> Self {
        Self { buffers: Some(buffers), ..Self::default() }
    }
}

/// What the client knows of the rows.
#[derive(Debug, Default)]
struct Rows {
    sent: u64,
    acknowledged: u64,
    /// Sent when a connection broke: there, or not.
    unsure: Vec<u64>,
}

impl App for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn port(&self) -> u16 {
        5432
    }

    fn command(&self) -> Vec<String> {
        let Some(buffers) = self.buffers else { return Vec::new() };
        let data = "/var/lib/postgresql/data";
        let start =
            format!("exec /usr/lib/postgresql/*/bin/postgres -D {data} -c shared_buffers={buffers}MB");
        ["sh", "-c", &start].map(str::to_owned).to_vec()
    }

    fn fill(&mut self, peer: &Peer) -> Result<Facts> {
        wait_until(START_LIMIT, || session(peer).is_ok()).context("PostgreSQL does not come up")?;
        let mut connection = session(peer)?;
        if let Some(buffers) = self.buffers {
            query(&mut connection, "CREATE UNLOGGED TABLE warm (text text)")?;
            // A page holds seven such rows. They are no part of its files afterwards, but of its memory.
            let rows = buffers * 128 * 7 * 9 / 10;
            let fill =
                format!("INSERT INTO warm SELECT repeat(md5(n::text), 34) FROM generate_series(1, {rows}) n");
            query(&mut connection, &fill)?;
            query(&mut connection, "DROP TABLE warm")?;
        }
        query(&mut connection, CREATE)?;
        self.started = single(&mut connection, STARTED)?;
        *lock(&self.rows) = Rows { sent: ROWS, acknowledged: ROWS, unsure: Vec::new() };
        Ok(Facts::new())
    }

    fn accompany(&mut self, host: &Arc<Host>, peers: &[Peer]) -> Result<()> {
        self.pgbench = Some(Pgbench::start(host, peers)?);
        require_bookings(&peers[0])
    }

    fn clients(&self) -> Vec<Box<dyn Client>> {
        vec![Box::new(Writer(Arc::clone(&self.rows)))]
    }

    fn verify(&mut self, peer: &Peer, traffic: &Traffic) -> Result<Facts> {
        let booked = self.pgbench.take().map(|pgbench| end(pgbench, peer)).transpose()?;
        let mut connection = session(peer)?;
        let rows = lock(&self.rows);
        let found: u64 = single(&mut connection, "SELECT count(*) FROM rows")?.parse()?;
        let unsure: Vec<String> = rows.unsure.iter().map(u64::to_string).collect();
        let sure = format!("SELECT count(*) FROM rows WHERE n NOT IN (0{})", joined(&unsure));
        let sure: u64 = single(&mut connection, &sure)?.parse()?;
        ensure!(
            sure == rows.acknowledged,
            "{sure} rows although {} inserts are acknowledged",
            rows.acknowledged
        );
        let damaged = single(&mut connection, DAMAGED)?;
        ensure!(damaged == "0", "{damaged} rows are damaged");
        let started = single(&mut connection, STARTED)?;
        ensure!(started == self.started, "the server was started anew, at {started}");
        let mut facts =
            facts([("rows_before", json!(ROWS + traffic.before())), ("rows_after", json!(found))]);
        facts.extend(booked.unwrap_or_default());
        Ok(facts)
    }
}

/// Waits until pgbench has written something more.
fn require_bookings(peer: &Peer) -> Result<()> {
    let mut connection = session(peer)?;
    let mut rows =
        || -> Result<u64> { Ok(single(&mut connection, "SELECT count(*) FROM pgbench_history")?.parse()?) };
    let before = rows()?;
    wait_until(START_LIMIT, || rows().is_ok_and(|rows| rows > before)).context("pgbench stands still")
}

/// Ends pgbench and checks its books.
fn end(pgbench: Pgbench, peer: &Peer) -> Result<Facts> {
    require_bookings(peer)?;
    let mut connection = session(peer)?;
    let account = pgbench.end(|| {
        // It is tried until pgbench has ended.
        let _ = query(&mut connection, HANG_UP);
    })?;
    let found = account.check(&single(&mut connection, BOOKS)?)?;
    ensure!(account.runs > 1, "pgbench did not notice the move");
    Ok(facts([("pgbench_acknowledged", json!(account.acknowledged)), ("pgbench_found", json!(found))]))
}

struct Writer(Arc<Mutex<Rows>>);

impl Client for Writer {
    fn greet(&mut self, connection: &mut Connection) -> Result<(), Trouble> {
        greet(connection)
    }

    fn request(&mut self, connection: &mut Connection) -> Result<(), Trouble> {
        let mut rows = lock(&self.0);
        rows.sent += 1;
        let n = rows.sent;
        rows.unsure.push(n);
        query(connection, &format!("INSERT INTO rows VALUES ({n}, md5('{n}'))"))?;
        rows.unsure.pop();
        rows.acknowledged += 1;
        Ok(())
    }
}

fn lock(rows: &Mutex<Rows>) -> MutexGuard<'_, Rows> {
    rows.lock().unwrap_or_else(PoisonError::into_inner)
}

fn joined(numbers: &[String]) -> String {
    numbers.iter().map(|n| format!(", {n}")).collect()
}

fn session(peer: &Peer) -> Result<Connection> {
    let mut connection = peer.connect()?;
    greet(&mut connection)?;
    Ok(connection)
}

/// Logs in; a server that is not ready for it is as good as none.
fn greet(connection: &mut Connection) -> Result<(), Trouble> {
    let mut message = 196_608_u32.to_be_bytes().to_vec();
    message.extend(b"user\0postgres\0database\0postgres\0\0");
    send(connection, None, &message)?;
    read_answer(connection)
        .map(drop)
        .map_err(|trouble| Trouble::Lost(std::io::Error::other(format!("{trouble:?}"))))
}

/// The rows that `sql` answers, their columns joined.
fn query(connection: &mut Connection, sql: &str) -> Result<Vec<String>, Trouble> {
    send(connection, Some(b'Q'), format!("{sql}\0").as_bytes())?;
    read_answer(connection)
}

fn single(connection: &mut Connection, sql: &str) -> Result<String> {
    query(connection, sql)?.pop().with_context(|| format!("{sql}: no row"))
}

fn send(connection: &mut Connection, kind: Option<u8>, body: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(body.len() + 4).map_err(std::io::Error::other)?;
    let mut message: Vec<u8> = kind.into_iter().collect();
    message.extend(length.to_be_bytes());
    message.extend(body);
    connection.send(&message)
}

/// Reads until the server is ready for the next request.
fn read_answer(connection: &mut Connection) -> Result<Vec<String>, Trouble> {
    let (mut rows, mut error) = (Vec::new(), None);
    loop {
        let head = connection.bytes(5)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let body = connection.bytes(length.saturating_sub(4))?;
        match head[0] {
            b'D' => rows.push(columns(&body)),
            b'E' => error = Some(String::from_utf8_lossy(&body).replace('\0', " ")),
            b'Z' => return error.map_or(Ok(rows), |error| Err(Trouble::Wrong(error))),
            _ => {}
        }
    }
}

fn columns(row: &[u8]) -> String {
    let mut rest = row.get(2..).unwrap_or_default();
    let mut columns = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        // A length of -1 stands for NULL.
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        let (value, tail) = tail.split_at(length.min(tail.len()));
        columns.push(String::from_utf8_lossy(value).into_owned());
        rest = tail;
    }
    columns.join("|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_its_columns() {
        let row = [&[0, 3][..], &[0, 0, 0, 1], b"7", &[255; 4], &[0, 0, 0, 2], b"ab"].concat();
        assert_eq!(columns(&row), "7||ab");
    }
}
