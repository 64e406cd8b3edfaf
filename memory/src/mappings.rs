//! The mappings of a process, as `maps` and `smaps` tell them.

use std::fs;
use std::io;

use crate::Span;

/// One mapping. From `maps`, only its line is known: no flags, no sizes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// Its line in `maps`, which is also its first in `smaps`.
    pub(crate) line: String,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Whether its pages are the process's own (`MAP_PRIVATE`).
    pub(crate) private: bool,
    pub(crate) inode: u64,
    pub(crate) name: String,
    /// Bytes in memory or swap that are of no file.
    pub(crate) populated: u64,
    /// Bytes in huge pages.
    pub(crate) huge: u64,
    /// `VmFlags`, as printed.
    pub(crate) flags: String,
}

impl Known {
    pub(crate) fn span(&self) -> Span {
        Span { start: self.start, end: self.end }
    }

    pub(crate) fn has(&self, flag: &str) -> bool {
        self.flags.split_ascii_whitespace().any(|held| held == flag)
    }

    /// Anonymous memory of the process's own, and nothing of the kernel's that only looks so.
    pub(crate) fn is_anonymous(&self) -> bool {
        let ordinary = self.name.is_empty() || self.name == "[heap]" || self.name.starts_with("[anon:");
        self.private && self.inode == 0 && ordinary
    }

    /// `START-END PERM OFFSET DEVICE INODE   NAME`.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.splitn(6, ' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let start = u64::from_str_radix(start, 16).ok()?;
        let end = u64::from_str_radix(end, 16).ok()?;
        let permissions = fields.next().filter(|text| text.len() == 4)?;
        let (_offset, _device, rest) = (fields.next()?, fields.next()?.contains(':').then_some(())?, fields);
        let rest: Vec<&str> = rest.collect();
        let (inode, name) = match rest.as_slice() {
            [inode] => (*inode, ""),
            [inode, name] => (*inode, name.trim_start()),
            _ => return None,
        };
        Some(Self {
            line: line.to_owned(),
            start,
            end,
            private: permissions.ends_with('p'),
            inode: inode.parse().ok()?,
            name: name.to_owned(),
            ..Self::default()
        })
    }
}

/// Cheap, also for a process that is frozen.
pub(crate) fn maps(host: i32) -> io::Result<Vec<Known>> {
    Ok(parse(&read(host, "maps")?))
}

/// All private mappings of host process `host`, those of files among them.
///
/// # Errors
/// When it is gone.
pub fn private_mappings(host: i32) -> io::Result<Vec<Span>> {
    Ok(maps(host)?.iter().filter(|mapping| mapping.private).map(Known::span).collect())
}

/// With flags and sizes. The kernel walks the page tables for it, some 7 ms per GiB: not while anything is frozen.
pub(crate) fn smaps(host: i32) -> io::Result<Vec<Known>> {
    Ok(parse(&read(host, "smaps")?))
}

/// Names in it may be any bytes.
fn read(host: i32, file: &str) -> io::Result<String> {
    fs::read(format!("/proc/{host}/{file}")).map(|text| String::from_utf8_lossy(&text).into_owned())
}

fn parse(text: &str) -> Vec<Known> {
    let mut all: Vec<Known> = Vec::new();
    for line in text.lines() {
        if let Some(mapping) = Known::parse(line) {
            // A running process changes its mappings between two reads of the file: what was told first is no longer so.
            while all.last().is_some_and(|last| last.end > mapping.start) {
                all.pop();
            }
            all.push(mapping);
        } else if let (Some(mapping), Some((key, value))) = (all.last_mut(), line.split_once(':')) {
            match key {
                "VmFlags" => value.trim().clone_into(&mut mapping.flags),
                "Anonymous" | "Swap" => mapping.populated += bytes(value),
                "AnonHugePages" => mapping.huge = bytes(value),
                _ => {}
            }
        }
    }
    all
}

/// `  12 kB`.
fn bytes(value: &str) -> u64 {
    value.split_ascii_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0_u64) * 1024
}

/// The two lines of each mapping that CRIU reads of `smaps`.
pub(crate) fn reduced(mappings: &[Known]) -> Vec<u8> {
    mappings
        .iter()
        .fold(String::new(), |text, m| text + &m.line + "\nVmFlags: " + &m.flags + "\n")
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_mappings_that_changed_while_they_were_read_the_later_are_true() {
        const GROWN: &str = "\
7f0000000000-7f0000100000 rw-p 00000000 00:00 0 
7f0000200000-7f0000300000 rw-p 00000000 00:00 0 
7f0000300000-7f0000400000 r--p 00000000 00:00 0 
7f0000200000-7f0000500000 rw-p 00000000 00:00 0 
VmFlags: rd wr 
";
        let spans: Vec<_> = parse(GROWN).iter().map(|mapping| (mapping.start, mapping.end)).collect();
        let wanted = [(0x7f00_0000_0000, 0x7f00_0010_0000), (0x7f00_0020_0000, 0x7f00_0050_0000)];
        assert_eq!(spans, wanted);
    }

    const SMAPS: &str = "\
55d0c0a00000-55d0c0a21000 rw-p 00000000 00:00 0                          [heap]
Size:                132 kB
Anonymous:            20 kB
AnonHugePages:      2048 kB
Swap:                  8 kB
SwapPss:               8 kB
THPeligible:           0
VmFlags: rd wr mr mw me ac uw sd 
7f0000000000-7f0000100000 rw-p 00000000 00:00 0 
VmFlags: rd wr 
7f0000200000-7f0000300000 r-xs 00001000 fe:00 1234                       /a b: c (deleted)
VmFlags: rd ex sh 
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
VmFlags: ex 
";

    #[test]
    fn what_the_kernel_prints_is_read() {
        let all = parse(SMAPS);
        assert_eq!(all.len(), 4);
        assert_eq!(all[0].span(), Span { start: 0x55d0_c0a0_0000, end: 0x55d0_c0a2_1000 });
        assert_eq!((all[0].populated, all[0].huge), (28 << 10, 2 << 20));
        assert!(all[0].has("uw") && !all[0].has("nr"));
        assert_eq!((all[2].name.as_str(), all[2].inode, all[2].private), ("/a b: c (deleted)", 1234, false));
        assert_eq!(all.iter().map(Known::is_anonymous).collect::<Vec<_>>(), [true, true, false, false]);
    }

    #[test]
    fn what_is_kept_reads_the_same() {
        let all = parse(SMAPS);
        let again = parse(&String::from_utf8(reduced(&all)).unwrap());
        let lines = |all: &[Known]| all.iter().map(|m| (m.line.clone(), m.flags.clone())).collect::<Vec<_>>();
        assert_eq!(lines(&all), lines(&again));
    }

    #[test]
    fn our_own_are_told_alike_by_both_files() {
        let me = i32::try_from(std::process::id()).unwrap();
        let line = |m: &Known| m.name == "[vdso]";
        let short = maps(me).unwrap().into_iter().find(line).unwrap();
        let long = smaps(me).unwrap().into_iter().find(line).unwrap();
        assert_eq!(short.line, long.line);
        assert!(long.has("rd"));
    }
}
