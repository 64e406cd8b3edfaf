//! What a container uses, read from its cgroups into the stock shim's messages.

use std::collections::HashMap;
use std::path::Path;

use containerd_shim::protos::cgroups::metrics as v1;
use containerd_shim::protos::cgroups_v2::metrics as v2;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::protobuf::MessageField;
use containerd_shim::util::convert_to_any;
use nix::unistd::{sysconf, SysconfVar};

use crate::cgroup::Cgroup;
use crate::error::Error;

/// The current numbers. What the kernel does not count is left out.
pub(crate) fn read(cgroup: &Cgroup) -> Result<Any, Error> {
    let any = match cgroup {
        Cgroup::V1(_) => convert_to_any(Box::new(metrics_v1(cgroup))),
        Cgroup::V2(path) => convert_to_any(Box::new(metrics_v2(path))),
    };
    any.map_err(|source| Error::Encode { what: "metrics", source })
}

fn metrics_v1(cgroup: &Cgroup) -> v1::Metrics {
    let controller = |name| cgroup.controller(name).filter(|path| path.exists());
    v1::Metrics {
        pids: controller("pids").map(pids_v1).into(),
        cpu: MessageField::some(cpu_v1(controller("cpu"), controller("cpuacct"))),
        memory: controller("memory").map(memory_v1).into(),
        memory_oom_control: controller("memory").map(oom_control_v1).into(),
        blkio: controller("blkio").map(blkio_v1).into(),
        hugetlb: controller("hugetlb").map(hugetlb_v1).unwrap_or_default(),
        ..v1::Metrics::default()
    }
}

fn pids_v1(path: &Path) -> v1::PidsStat {
    v1::PidsStat {
        current: number(path, "pids.current"),
        limit: number(path, "pids.max"),
        ..Default::default()
    }
}

fn cpu_v1(cpu: Option<&Path>, cpuacct: Option<&Path>) -> v1::CPUStat {
    let throttled = cpu.map(|path| table(path, "cpu.stat")).unwrap_or_default();
    let throttling = v1::Throttle {
        periods: at(&throttled, "nr_periods"),
        throttled_periods: at(&throttled, "nr_throttled"),
        throttled_time: at(&throttled, "throttled_time"),
        ..Default::default()
    };
    let usage = cpuacct.map(|path| {
        let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|hz| u64::try_from(hz).ok());
        let nanoseconds = 1_000_000_000 / ticks.filter(|hz| *hz > 0).unwrap_or(100);
        let split = table(path, "cpuacct.stat");
        let per_cpu = text(path, "cpuacct.usage_percpu");
        v1::CPUUsage {
            total: number(path, "cpuacct.usage"),
            user: at(&split, "user") * nanoseconds,
            kernel: at(&split, "system") * nanoseconds,
            per_cpu: per_cpu.split_ascii_whitespace().filter_map(|count| count.parse().ok()).collect(),
            ..Default::default()
        }
    });
    v1::CPUStat { usage: usage.into(), throttling: MessageField::some(throttling), ..Default::default() }
}

fn memory_v1(path: &Path) -> v1::MemoryStat {
    let stat = table(path, "memory.stat");
    let get = |key: &str| at(&stat, key);
    let entry = |kind: &str| {
        let name = |what: &str| format!("memory.{kind}{what}");
        MessageField::some(v1::MemoryEntry {
            usage: number(path, &name("usage_in_bytes")),
            limit: number(path, &name("limit_in_bytes")),
            max: number(path, &name("max_usage_in_bytes")),
            failcnt: number(path, &name("failcnt")),
            ..Default::default()
        })
    };
    v1::MemoryStat {
        cache: get("cache"),
        rss: get("rss"),
        rss_huge: get("rss_huge"),
        mapped_file: get("mapped_file"),
        dirty: get("dirty"),
        writeback: get("writeback"),
        pg_pg_in: get("pgpgin"),
        pg_pg_out: get("pgpgout"),
        pg_fault: get("pgfault"),
        pg_maj_fault: get("pgmajfault"),
        inactive_anon: get("inactive_anon"),
        active_anon: get("active_anon"),
        inactive_file: get("inactive_file"),
        active_file: get("active_file"),
        unevictable: get("unevictable"),
        hierarchical_memory_limit: get("hierarchical_memory_limit"),
        hierarchical_swap_limit: get("hierarchical_memsw_limit"),
        total_cache: get("total_cache"),
        total_rss: get("total_rss"),
        total_rss_huge: get("total_rss_huge"),
        total_mapped_file: get("total_mapped_file"),
        total_dirty: get("total_dirty"),
        total_writeback: get("total_writeback"),
        total_pg_pg_in: get("total_pgpgin"),
        total_pg_pg_out: get("total_pgpgout"),
        total_pg_fault: get("total_pgfault"),
        total_pg_maj_fault: get("total_pgmajfault"),
        total_inactive_anon: get("total_inactive_anon"),
        total_active_anon: get("total_active_anon"),
        total_inactive_file: get("total_inactive_file"),
        total_active_file: get("total_active_file"),
        total_unevictable: get("total_unevictable"),
        usage: entry(""),
        swap: entry("memsw."),
        kernel: entry("kmem."),
        kernel_tcp: entry("kmem.tcp."),
        ..Default::default()
    }
}

fn oom_control_v1(path: &Path) -> v1::MemoryOomControl {
    let control = table(path, "memory.oom_control");
    v1::MemoryOomControl {
        oom_kill_disable: at(&control, "oom_kill_disable"),
        under_oom: at(&control, "under_oom"),
        oom_kill: at(&control, "oom_kill"),
        ..Default::default()
    }
}

fn blkio_v1(path: &Path) -> v1::BlkIOStat {
    let entries = |name: &str| -> Vec<v1::BlkIOEntry> {
        let own = text(path, &format!("blkio.{name}"));
        // Without a scheduler that counts, the throttling layer does.
        let counted =
            if own.lines().count() > 1 { own } else { text(path, &format!("blkio.throttle.{name}")) };
        counted.lines().filter_map(blkio_entry).collect()
    };
    v1::BlkIOStat {
        io_service_bytes_recursive: entries("io_service_bytes_recursive"),
        io_serviced_recursive: entries("io_serviced_recursive"),
        ..Default::default()
    }
}

/// `8:0 Read 4096`.
fn blkio_entry(line: &str) -> Option<v1::BlkIOEntry> {
    let mut fields = line.split_ascii_whitespace();
    let (major, minor) = fields.next()?.split_once(':')?;
    Some(v1::BlkIOEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        op: fields.next()?.to_owned(),
        value: fields.next()?.parse().ok()?,
        ..Default::default()
    })
}

fn hugetlb_v1(path: &Path) -> Vec<v1::HugetlbStat> {
    page_sizes(path, ".usage_in_bytes")
        .map(|size| v1::HugetlbStat {
            usage: number(path, &format!("hugetlb.{size}.usage_in_bytes")),
            max: number(path, &format!("hugetlb.{size}.max_usage_in_bytes")),
            failcnt: number(path, &format!("hugetlb.{size}.failcnt")),
            pagesize: size,
            ..Default::default()
        })
        .collect()
}

fn metrics_v2(path: &Path) -> v2::Metrics {
    v2::Metrics {
        pids: MessageField::some(v2::PidsStat {
            current: number(path, "pids.current"),
            limit: number(path, "pids.max"),
            ..Default::default()
        }),
        cpu: MessageField::some(cpu_v2(&table(path, "cpu.stat"))),
        memory: MessageField::some(memory_v2(path)),
        memory_events: MessageField::some(events_v2(&table(path, "memory.events"))),
        io: MessageField::some(v2::IOStat {
            usage: text(path, "io.stat").lines().filter_map(io_entry).collect(),
            ..Default::default()
        }),
        hugetlb: page_sizes(path, ".current")
            .map(|size| v2::HugeTlbStat {
                current: number(path, &format!("hugetlb.{size}.current")),
                max: number(path, &format!("hugetlb.{size}.max")),
                failcnt: at(&table(path, &format!("hugetlb.{size}.events")), "max"),
                pagesize: size,
                ..Default::default()
            })
            .collect(),
        ..v2::Metrics::default()
    }
}

fn cpu_v2(stat: &Table) -> v2::CPUStat {
    v2::CPUStat {
        usage_usec: at(stat, "usage_usec"),
        user_usec: at(stat, "user_usec"),
        system_usec: at(stat, "system_usec"),
        nr_periods: at(stat, "nr_periods"),
        nr_throttled: at(stat, "nr_throttled"),
        throttled_usec: at(stat, "throttled_usec"),
        ..Default::default()
    }
}

fn memory_v2(path: &Path) -> v2::MemoryStat {
    let stat = table(path, "memory.stat");
    let get = |key: &str| at(&stat, key);
    v2::MemoryStat {
        anon: get("anon"),
        file: get("file"),
        kernel_stack: get("kernel_stack"),
        slab: get("slab"),
        sock: get("sock"),
        shmem: get("shmem"),
        file_mapped: get("file_mapped"),
        file_dirty: get("file_dirty"),
        file_writeback: get("file_writeback"),
        anon_thp: get("anon_thp"),
        inactive_anon: get("inactive_anon"),
        active_anon: get("active_anon"),
        inactive_file: get("inactive_file"),
        active_file: get("active_file"),
        unevictable: get("unevictable"),
        slab_reclaimable: get("slab_reclaimable"),
        slab_unreclaimable: get("slab_unreclaimable"),
        pgfault: get("pgfault"),
        pgmajfault: get("pgmajfault"),
        workingset_refault: get("workingset_refault"),
        workingset_activate: get("workingset_activate"),
        workingset_nodereclaim: get("workingset_nodereclaim"),
        pgrefill: get("pgrefill"),
        pgscan: get("pgscan"),
        pgsteal: get("pgsteal"),
        pgactivate: get("pgactivate"),
        pgdeactivate: get("pgdeactivate"),
        pglazyfree: get("pglazyfree"),
        pglazyfreed: get("pglazyfreed"),
        thp_fault_alloc: get("thp_fault_alloc"),
        thp_collapse_alloc: get("thp_collapse_alloc"),
        usage: number(path, "memory.current"),
        usage_limit: unlimited(path, "memory.max"),
        max_usage: number(path, "memory.peak"),
        swap_usage: number(path, "memory.swap.current"),
        swap_limit: unlimited(path, "memory.swap.max"),
        swap_max_usage: number(path, "memory.swap.peak"),
        ..Default::default()
    }
}

fn events_v2(events: &Table) -> v2::MemoryEvents {
    v2::MemoryEvents {
        low: at(events, "low"),
        high: at(events, "high"),
        max: at(events, "max"),
        oom: at(events, "oom"),
        oom_kill: at(events, "oom_kill"),
        ..Default::default()
    }
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 ...`.
fn io_entry(line: &str) -> Option<v2::IOEntry> {
    let mut fields = line.split_ascii_whitespace();
    let (major, minor) = fields.next()?.split_once(':')?;
    let counts: Table = fields
        .filter_map(|field| field.split_once('='))
        .filter_map(|(key, count)| Some((key.to_owned(), count.parse().ok()?)))
        .collect();
    Some(v2::IOEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        rbytes: at(&counts, "rbytes"),
        wbytes: at(&counts, "wbytes"),
        rios: at(&counts, "rios"),
        wios: at(&counts, "wios"),
        ..Default::default()
    })
}

type Table = HashMap<String, u64>;

fn at(table: &Table, key: &str) -> u64 {
    table.get(key).copied().unwrap_or(0)
}

fn text(directory: &Path, name: &str) -> String {
    std::fs::read_to_string(directory.join(name)).unwrap_or_default()
}

/// A count. The limit `max` reads as 0, as the messages of pids have it.
fn number(directory: &Path, name: &str) -> u64 {
    text(directory, name).trim().parse().unwrap_or(0)
}

/// A limit where none is the largest number, as the messages of memory have it.
fn unlimited(directory: &Path, name: &str) -> u64 {
    match text(directory, name).trim() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}

/// Lines of a name and a number.
fn table(directory: &Path, name: &str) -> Table {
    text(directory, name)
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(key, count)| Some((key.to_owned(), count.trim().parse().ok()?)))
        .collect()
}

/// The sizes `2MB` of the files `hugetlb.2MBSUFFIX`.
fn page_sizes<'a>(directory: &Path, suffix: &'a str) -> impl Iterator<Item = String> + 'a {
    let names = std::fs::read_dir(directory).into_iter().flatten().flatten();
    names.filter_map(move |entry| {
        let name = entry.file_name().into_string().ok()?;
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?;
        (!size.contains('.')).then(|| size.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim::protos::protobuf::Message;

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        directory
    }

    #[test]
    fn version_1_is_read_from_its_controllers() {
        let files = directory(&[
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("cpuacct.usage", "5000000\n"),
            ("cpuacct.stat", "user 2\nsystem 1\n"),
            ("cpuacct.usage_percpu", "2000000 3000000 \n"),
            ("cpu.stat", "nr_periods 4\nnr_throttled 1\nthrottled_time 99\n"),
            ("memory.stat", "cache 10\nrss 20\ntotal_inactive_file 7\n"),
            ("memory.usage_in_bytes", "30\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
            ("blkio.throttle.io_service_bytes_recursive", "8:0 Read 4096\n8:0 Write 0\nTotal 4096\n"),
        ]);
        let names = ["pids", "cpu", "cpuacct", "memory", "blkio"];
        let cgroup = Cgroup::V1(names.iter().map(|name| ((*name).into(), files.path().into())).collect());
        let any = read(&cgroup).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
        let metrics = v1::Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!((metrics.pids.current, metrics.pids.limit), (3, 0));
        assert_eq!(metrics.cpu.usage.total, 5_000_000);
        assert_eq!(metrics.cpu.usage.user, 20_000_000);
        assert_eq!(metrics.cpu.usage.per_cpu, [2_000_000, 3_000_000]);
        assert_eq!(metrics.cpu.throttling.throttled_time, 99);
        assert_eq!(metrics.memory.total_inactive_file, 7);
        assert_eq!(metrics.memory.usage.usage, 30);
        assert_eq!(metrics.memory.usage.limit, 9_223_372_036_854_771_712);
        assert_eq!(metrics.memory_oom_control.oom_kill, 1);
        assert_eq!(metrics.blkio.io_service_bytes_recursive.len(), 2);
    }

    #[test]
    fn version_2_is_read_from_one_directory() {
        let files = directory(&[
            ("pids.current", "3\n"),
            ("pids.max", "100\n"),
            ("cpu.stat", "usage_usec 50\nuser_usec 30\nsystem_usec 20\n"),
            ("memory.stat", "anon 10\ninactive_file 7\n"),
            ("memory.current", "30\n"),
            ("memory.max", "max\n"),
            ("memory.events", "oom 1\noom_kill 2\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"),
            ("hugetlb.2MB.current", "2097152\n"),
            ("hugetlb.2MB.rsvd.current", "0\n"),
        ]);
        let any = read(&Cgroup::V2(files.path().into())).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
        let metrics = v2::Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!((metrics.pids.current, metrics.pids.limit), (3, 100));
        assert_eq!(metrics.cpu.usage_usec, 50);
        assert_eq!((metrics.memory.usage, metrics.memory.usage_limit), (30, u64::MAX));
        assert_eq!(metrics.memory_events.oom_kill, 2);
        assert_eq!(metrics.io.usage[0].wios, 4);
        assert_eq!(metrics.hugetlb.len(), 1);
        assert_eq!(metrics.hugetlb[0].pagesize, "2MB");
    }
}
