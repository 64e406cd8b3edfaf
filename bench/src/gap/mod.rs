//! How long a program stands still when it moves to another host, by its own clock: a look at it each millisecond. If asked for,
//! a client sees the same from outside.
//!
//! | side | what |
//! |---|---|
//! | fastmig | `fastmig migrate` into a container that waits, encrypted |
//! | runc | `runc checkpoint` to tmpfs, tar over TCP in the clear into a receiver that waits, `runc restore` |
//!
//! Both hosts run Debian forky, whose own CRIU can dump TCP sockets. Each measurement starts the program anew, and looks at
//! all of its memory afterwards.

pub(crate) mod plain;
mod warm;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use clap::Args;
use fastmig_tests::apps::memory::image;
use fastmig_tests::framework::cache::Cache;
use fastmig_tests::framework::daemon::cluster;
use fastmig_tests::framework::realm::Realm;
use fastmig_tests::framework::{dist, Equipment, Generation, Host};

/// What it does before it is moved.
const LIFE: Duration = Duration::from_secs(1);

/// What is measured.
#[derive(Args, Debug)]
pub struct Options {
    /// MiB of memory, with commas between them
    #[arg(long, value_delimiter = ',', default_values_t = [16, 128, 1024, 4096])]
    sizes: Vec<usize>,
    /// MiB written each second, with commas between them
    #[arg(long, value_delimiter = ',', default_values_t = [0, 100])]
    writes: Vec<usize>,
    /// Processes, each with that memory; they write together
    #[arg(long, default_value_t = 1)]
    processes: usize,
    /// Measurements of each kind
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only the rows or sides whose name contains this: "1024 MiB", "idle", "fastmig"
    #[arg(long, value_name = "SUBSTRING")]
    only: Option<String>,
    /// Let a client ask it each millisecond while `fastmig` moves it (runc refuses what has a connection)
    #[arg(long)]
    client: bool,
    /// Further arguments of `fastmig migrate`, after `--`
    #[arg(last = true)]
    migrate: Vec<String>,
}

/// The two hosts.
struct Stage {
    a: Arc<Host>,
    b: Arc<Host>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Fastmig,
    Runc,
}

impl Side {
    const ALL: [Self; 2] = [Self::Fastmig, Self::Runc];

    fn name(self) -> &'static str {
        match self {
            Self::Fastmig => "fastmig",
            Self::Runc => "runc",
        }
    }
}

/// How long a move took the program from the world.
#[derive(Debug, Clone, Copy)]
struct Gap {
    /// By its own clock.
    own: Duration,
    /// To a client, if there was one.
    client: Option<Duration>,
}

/// One program, and what its moves were like on either side.
struct Row {
    mib: usize,
    writes: usize,
    processes: usize,
    gaps: [Vec<Gap>; 2],
}

impl Row {
    fn name(&self) -> String {
        let writes = if self.writes == 0 { "idle".to_owned() } else { format!("{} MiB/s", self.writes) };
        match self.processes {
            1 => format!("{} MiB, {writes}", self.mib),
            n => format!("{n} x {} MiB, {writes}", self.mib),
        }
    }

    /// The program's arguments.
    fn words(&self) -> Vec<String> {
        let numbers = [("--mib", self.mib), ("--writes", self.writes), ("--processes", self.processes)];
        let options = numbers.into_iter().flat_map(|(name, number)| [name.to_owned(), number.to_string()]);
        std::iter::once("tick".to_owned()).chain(options).collect()
    }

    fn line(&self) -> String {
        let own = self.gaps.each_ref().map(|gaps| median(gaps.iter().map(|gap| gap.own)));
        let client = median(self.gaps[0].iter().filter_map(|gap| gap.client));
        let ratio = match own {
            [Some(fastmig), Some(runc)] => format!("{:.1}", runc / fastmig),
            _ => "-".to_owned(),
        };
        let cell = |gap: Option<f64>| gap.map_or_else(|| "-".to_owned(), |gap| format!("{gap:.1} ms"));
        let cells = [own[0], client, own[1]].map(cell).join(" | ");
        format!("| {} | {cells} | {ratio} |", self.name())
    }
}

/// Measures, and prints a table.
///
/// # Errors
/// When the hosts cannot be made, or a program does not survive its move.
pub fn run(options: &Options) -> Result<()> {
    let mut rows = rows(options);
    let wanted = |row: &Row, side: Side| {
        let name = format!("{}, {}", row.name(), side.name());
        options.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    };
    rows.retain(|row| Side::ALL.iter().any(|&side| wanted(row, side)));
    ensure!(!rows.is_empty(), "nothing is called so");
    let stage = Stage::up()?;
    for round in 1..=options.rounds {
        for row in &mut rows {
            for (index, side) in Side::ALL.into_iter().enumerate() {
                if !wanted(row, side) {
                    continue;
                }
                let name = format!("round {round}: {}, {}", row.name(), side.name());
                let gap = stage.measure(row, side, options).with_context(|| name.clone())?;
                eprintln!("{name}: {:.1} ms", milliseconds(gap.own));
                row.gaps[index].push(gap);
            }
        }
    }
    println!("medians of {} rounds", options.rounds);
    println!("| memory | fastmig migrate | to a client | runc checkpoint, tar, restore | ratio |");
    println!("|---|---|---|---|---|");
    rows.iter().for_each(|row| println!("{}", row.line()));
    Ok(())
}

fn rows(options: &Options) -> Vec<Row> {
    let kinds = options.sizes.iter().flat_map(|&mib| options.writes.iter().map(move |&writes| (mib, writes)));
    let row = |(mib, writes)| Row { mib, writes, processes: options.processes, gaps: Default::default() };
    kinds.map(row).collect()
}

impl Stage {
    fn up() -> Result<Self> {
        let (realm, cache) = (Realm::or_from_environment("bench")?, Cache::open()?);
        let up = |name| Host::up(&realm, &cache, name, Generation::Forky, Equipment::Plain).map(Arc::new);
        let stage = Self { a: up("a")?, b: up("b")? };
        let dist = dist::build()?;
        for host in [&stage.a, &stage.b] {
            host.install(&dist)?;
            host.start_containerd()?;
            host.import_images(&[image()])?;
            plain::prepare(host)?;
        }
        cluster(&[&stage.a, &stage.b])?;
        Ok(stage)
    }

    fn measure(&self, row: &Row, side: Side, options: &Options) -> Result<Gap> {
        let words = row.words();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match side {
            Side::Fastmig => warm::measure(self, &words, options),
            Side::Runc => plain::measure(self, &words),
        }
    }
}

/// The one in the middle, in milliseconds.
fn median(gaps: impl Iterator<Item = Duration>) -> Option<f64> {
    let mut sorted: Vec<Duration> = gaps.collect();
    sorted.sort_unstable();
    let middle = sorted.len().checked_sub(1)? / 2;
    Some(milliseconds((sorted[middle] + sorted[sorted.len() / 2]) / 2))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(milliseconds: &[u64]) -> impl Iterator<Item = Duration> + '_ {
        milliseconds.iter().copied().map(Duration::from_millis)
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(of(&[9, 1, 5])), Some(5.0));
        assert_eq!(median(of(&[9, 1, 5, 7])), Some(6.0));
        assert_eq!(median(of(&[])), None);
    }

    #[test]
    fn a_row_tells_how_many_times_longer_the_other_way_is() {
        let gaps = |milliseconds| of(milliseconds).map(|own| Gap { own, client: None }).collect();
        let mut row = Row { mib: 16, writes: 0, processes: 1, gaps: [gaps(&[20]), gaps(&[500])] };
        row.gaps[0][0].client = Some(Duration::from_millis(21));
        assert_eq!(row.line(), "| 16 MiB, idle | 20.0 ms | 21.0 ms | 500.0 ms | 25.0 |");
        let half = Row { mib: 16, writes: 100, processes: 2, gaps: [gaps(&[20]), gaps(&[])] };
        assert_eq!(half.line(), "| 2 x 16 MiB, 100 MiB/s | 20.0 ms | - | - | - |");
    }
}
