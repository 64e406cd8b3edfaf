//! Which compression is fastest now: what a link carries and what a core compresses are measured as chunks go by.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Codec, Packed};
use crate::options::Compression;

/// The weight of the newest measurement against all before.
const NEWEST: f64 = 0.1;
/// A chunk in so many tries what is not thought the fastest, for content changes.
const TRY: u64 = 96;
/// Smaller chunks say little about rates.
const TELLING: usize = 64 << 10;

/// Chooses for all connections of a migration.
#[derive(Debug)]
pub(crate) struct Chooser {
    asked: Compression,
    measured: Mutex<Measured>,
}

#[derive(Debug, Default)]
struct Measured {
    chunks: u64,
    /// Seconds for a byte on a connection.
    link: Option<f64>,
    lz4: Cost,
    zstd: Cost,
    used: [u64; 3],
}

/// What a compression costs for each byte that goes in.
#[derive(Debug, Default, Clone, Copy)]
struct Cost {
    /// Seconds.
    time: Option<f64>,
    /// Bytes that come out.
    size: f64,
}

/// How long a chunk took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) packing: Duration,
    pub(crate) sending: Duration,
}

impl Chooser {
    pub(crate) fn new(asked: Compression) -> Self {
        Self { asked, measured: Mutex::default() }
    }

    /// For the next chunk.
    pub(crate) fn choose(&self) -> Codec {
        match self.asked {
            Compression::None => Codec::None,
            Compression::Lz4 => Codec::Lz4,
            Compression::Zstd => Codec::Zstd,
            Compression::Auto => self.with(Measured::choose),
        }
    }

    /// What came of a chunk for which `codec` was chosen.
    pub(crate) fn learn(&self, codec: Codec, packed: Packed, wire: usize, times: Times) {
        self.with(|measured| measured.learn(codec, packed, wire, times));
    }

    /// Chunks by how they were compressed in the end.
    pub(crate) fn used(&self) -> [u64; 3] {
        self.with(|measured| measured.used)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Measured) -> T) -> T {
        work(&mut self.measured.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Measured {
    fn choose(&mut self) -> Codec {
        self.chunks += 1;
        let Some(link) = self.link else {
            return Codec::Lz4;
        };
        if self.lz4.time.is_none() || self.chunks % TRY == TRY / 2 {
            return Codec::Lz4;
        }
        if self.zstd.time.is_none() || self.chunks % TRY == 0 {
            return Codec::Zstd;
        }
        let by =
            [(Codec::None, link), (Codec::Lz4, self.lz4.total(link)), (Codec::Zstd, self.zstd.total(link))];
        by.into_iter().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(Codec::Lz4, |(codec, _)| codec)
    }

    fn learn(&mut self, codec: Codec, packed: Packed, wire: usize, times: Times) {
        self.used[packed.codec as usize] += 1;
        if wire >= TELLING {
            // Packed into few bytes, a chunk waits in a socket's buffer and says nothing of the link.
            blend(&mut self.link, times.sending.as_secs_f64() / wire as f64);
        }
        if packed.compressed >= TELLING {
            let raw = packed.compressed as f64;
            let cost = match codec {
                Codec::None => return,
                Codec::Lz4 => &mut self.lz4,
                Codec::Zstd => &mut self.zstd,
            };
            let size = (wire as f64 / raw).min(1.0);
            cost.size = if cost.time.is_some() { cost.size + NEWEST * (size - cost.size) } else { size };
            blend(&mut cost.time, times.packing.as_secs_f64() / raw);
        }
    }
}

impl Cost {
    /// Seconds for each byte, compressed and sent.
    fn total(self, link: f64) -> f64 {
        self.time.unwrap_or(0.0) + self.size * link
    }
}

fn blend(mean: &mut Option<f64>, newest: f64) {
    *mean = Some(mean.map_or(newest, |mean| mean + NEWEST * (newest - mean)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::CHUNK;

    /// Lets chunks go by over a link, with compressors that make so many percent of it, at so many MB/s.
    fn settle(link: f64, lz4: (usize, f64), zstd: (usize, f64)) -> Codec {
        let chooser = Chooser::new(Compression::Auto);
        let mut chosen = [0; 3];
        for round in 0..1000 {
            let codec = chooser.choose();
            let (size, rate) = match codec {
                Codec::None => (100, f64::INFINITY),
                Codec::Lz4 => lz4,
                Codec::Zstd => zstd,
            };
            let wire = CHUNK * size / 100;
            let raw = CHUNK as f64;
            let times = Times {
                packing: Duration::from_secs_f64(raw / (rate * 1e6)),
                sending: Duration::from_secs_f64(wire as f64 / (link * 1e6)),
            };
            let packed = Packed { compressed: CHUNK, zero: 0, codec };
            chooser.learn(codec, packed, wire, times);
            if round > 200 {
                chosen[codec as usize] += 1;
            }
        }
        let most = chosen.into_iter().enumerate().max_by_key(|(_, count)| *count).unwrap().0;
        [Codec::None, Codec::Lz4, Codec::Zstd][most]
    }

    #[test]
    fn a_slow_link_is_worth_the_best_compression() {
        assert_eq!(settle(10.0, (50, 600.0), (30, 300.0)), Codec::Zstd);
    }

    #[test]
    fn a_faster_one_is_worth_a_quick_compression() {
        assert_eq!(settle(250.0, (50, 700.0), (45, 200.0)), Codec::Lz4);
    }

    #[test]
    fn the_fastest_is_worth_none() {
        assert_eq!(settle(3000.0, (50, 600.0), (30, 300.0)), Codec::None);
    }

    #[test]
    fn what_does_not_shrink_is_not_compressed() {
        assert_eq!(settle(100.0, (100, 2000.0), (99, 400.0)), Codec::None);
    }

    #[test]
    fn who_asked_is_obeyed() {
        assert_eq!(Chooser::new(Compression::Zstd).choose(), Codec::Zstd);
        assert_eq!(Chooser::new(Compression::None).choose(), Codec::None);
    }
}
