//! pgbench beside the other clients of a PostgreSQL: in a container of its own, begun anew whenever its server goes away.
//!
//! Each of its transactions books one amount in four tables, so that their sums tell whether one was torn.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::container::{Container, Setup};
use super::peer::Peer;
use crate::framework::process::wait_until;
use crate::framework::Host;

/// Its connections, each with one transaction at a time.
const CLIENTS: u64 = 4;

/// Until it has made its tables, or has ended.
const LIMIT: Duration = Duration::from_secs(60);

/// Arguments: the number of connections, the addresses of the server. One thread connects before it asks, so that a run that
/// cannot connect has asked nothing.
const RUN: &str = r#"
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH; clients=$1; shift
export PGUSER=postgres PGDATABASE=postgres PGCONNECT_TIMEOUT=5
pgbench -h "$1" -i -q -s 1
echo its tables are made
until test -e /tmp/enough; do
  for address; do
    test -e /tmp/enough || pgbench -h "$address" -n -c "$clients" -j 1 -T 600 || sleep 0.02
  done
done
echo it has ended
"#;

/// Ends its connections to the server that is asked.
pub(super) const HANG_UP: &str =
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'pgbench'";

/// The rows that it has written, and the sums that must be equal.
pub(super) const BOOKS: &str = "SELECT count(*), sum(delta), (SELECT sum(abalance) FROM pgbench_accounts), \
     (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(tbalance) FROM pgbench_tellers) FROM pgbench_history";

/// pgbench at work.
#[derive(Debug)]
pub(super) struct Pgbench(Container);

/// What it knows of its transactions.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// Those that were acknowledged.
    pub(super) acknowledged: u64,
    /// Runs that ended, each with a transaction of each connection on the way.
    pub(super) runs: u64,
}

impl Pgbench {
    /// Makes its tables in the server at the first of `peers`, and begins, on `host`.
    pub(super) fn start(host: &Arc<Host>, peers: &[Peer]) -> Result<Self> {
        let arguments =
            [CLIENTS.to_string()].into_iter().chain(peers.iter().map(|peer| peer.ip().to_string()));
        let command = ["sh", "-ec", RUN, "pgbench"].map(String::from).into_iter().chain(arguments);
        let pgbench = Self(Container::run(host, "pgbench", &Setup::of("postgres").running(command))?);
        pgbench.wait_for("its tables are made", || {})?;
        Ok(pgbench)
    }

    /// Ends it; `hang_up` ends the connections that it has.
    pub(super) fn end(self, hang_up: impl FnMut()) -> Result<Account> {
        self.0.exec("enough", &["touch", "/tmp/enough"])?;
        self.wait_for("it has ended", hang_up)?;
        let account = Account::read(&self.output());
        self.0.remove()?;
        Ok(account)
    }

    fn wait_for(&self, words: &str, mut meanwhile: impl FnMut()) -> Result<()> {
        let seen = || {
            meanwhile();
            self.output().contains(words)
        };
        wait_until(LIMIT, seen)
            .with_context(|| format!("pgbench does not say {words:?}; it says:\n{}", self.output()))
    }

    fn output(&self) -> String {
        String::from_utf8_lossy(&self.0.output().unwrap_or_default()).into_owned()
    }
}

impl Account {
    fn read(output: &str) -> Self {
        let numbers: Vec<u64> = output
            .lines()
            .filter_map(|line| line.strip_prefix("number of transactions actually processed: ")?.parse().ok())
            .collect();
        Self { acknowledged: numbers.iter().sum(), runs: numbers.len() as u64 }
    }

    /// Fails unless `books`, as [`BOOKS`] asks for them, hold what was acknowledged, and all of each transaction; answers how
    /// many transactions they hold.
    pub(super) fn check(&self, books: &str) -> Result<u64> {
        let numbers: Vec<i64> = books
            .split('|')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("no books: {books}"))?;
        let (rows, sums) = numbers.split_first().context("no books")?;
        ensure!(sums.len() == 4 && sums.iter().all(|sum| *sum == sums[0]), "a transaction is torn: {books}");
        let rows = u64::try_from(*rows)?;
        // A run that is cut off does not know of its last transactions.
        let most = self.acknowledged + self.runs * CLIENTS;
        ensure!((self.acknowledged..=most).contains(&rows), "{rows} transactions are there, of {self:?}");
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_doubled_and_torn_transactions_are_seen() {
        let told = "number of transactions actually processed: 70\nx\nnumber of transactions actually processed: 30\n";
        let account = Account::read(told);
        assert_eq!(account, Account { acknowledged: 100, runs: 2 });
        assert_eq!(account.check("100|-7|-7|-7|-7").unwrap(), 100);
        assert_eq!(account.check("108|9|9|9|9").unwrap(), 108);
        for wrong in ["99|9|9|9|9", "109|9|9|9|9", "100|9|9|9|8", "100|9|9|9", "100||||", ""] {
            assert!(account.check(wrong).is_err(), "{wrong}");
        }
    }
}
