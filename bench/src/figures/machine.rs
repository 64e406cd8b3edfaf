//! The machine that was measured on: figures of two machines do not compare.

use std::fs;
use std::thread;

use fastmig_tests::framework::Cmd;
use serde::Serialize;

/// What stands beside every figure.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// As the processor calls itself.
    pub processor: String,
    /// How many of them run at once.
    pub cores: usize,
    /// MiB of memory.
    pub memory_mib: u64,
    /// MiB of free memory in pieces of 2 MiB or more when the run began: what huge pages can be made of at once.
    pub huge_mib: u64,
    /// The kernel's release.
    pub kernel: String,
    /// The load when the run began: how quiet the machine was.
    pub load: String,
    /// FastMig's own version.
    pub fastmig: String,
    /// What it was compared with, and its version; empty until the hosts are up.
    pub versions: String,
}

impl Machine {
    /// This one, now.
    pub fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kib: u64 = memory.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".into()),
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory_mib: kib / 1024,
            huge_mib: huge_mib(&read("/proc/buddyinfo")),
            kernel: Cmd::new(["uname", "-r"]).ok().unwrap_or_default().trim().to_owned(),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
            fastmig: env!("CARGO_PKG_VERSION").to_owned(),
            versions: String::new(),
        }
    }

    /// In one line, for charts and tables.
    pub fn line(&self) -> String {
        let versions = if self.versions.is_empty() { String::new() } else { format!(", {}", self.versions) };
        format!(
            "{}, {} cores, {} GiB ({} in huge pages), Linux {}, load {}; FastMig {}{versions}",
            self.processor,
            self.cores,
            self.memory_mib / 1024,
            self.huge_mib / 1024,
            self.kernel,
            self.load,
            self.fastmig
        )
    }
}

/// After each zone's name stand the numbers of its free pieces of 4 KiB, 8 KiB and so on.
fn huge_mib(buddyinfo: &str) -> u64 {
    const ORDER: usize = 9;
    let zone = |line: &str| {
        let counts = line.split_once("zone")?.1.split_whitespace().skip(1);
        let pieces = counts.enumerate().skip(ORDER);
        Some(
            pieces
                .map(|(order, count)| count.parse::<u64>().unwrap_or(0) << (order - ORDER + 1))
                .sum::<u64>(),
        )
    };
    buddyinfo.lines().filter_map(zone).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_made_of_large_pieces() {
        let text = "Node 0, zone      DMA      9      9      9      9      9      9      9      9      9      1      3\n\
                    Node 0, zone   Normal   3280  18081      0      0      0      0      0      0      0     10      0\n";
        assert_eq!(huge_mib(text), 2 + 3 * 4 + 20);
        assert_eq!(huge_mib("nonsense"), 0);
    }

    #[test]
    fn this_machine_is_known() {
        let machine = Machine::this();
        assert!(machine.cores >= 1 && machine.memory_mib > 0, "{machine:?}");
        assert!(!machine.kernel.is_empty() && machine.line().contains(&machine.kernel), "{machine:?}");
    }
}
