//! Pages of hugetlbfs, which are set aside by hand and are no other memory's.

use std::collections::BTreeMap;

/// Bytes of them that process `pid` has mapped, by the size of a page in KiB. The kernel walks its page tables for this, some 7 ms
/// per GiB: not while anything is frozen.
pub(crate) fn of(pid: i32) -> BTreeMap<u64, u64> {
    std::fs::read(format!("/proc/{pid}/smaps"))
        .map(|text| sizes(&String::from_utf8_lossy(&text)))
        .unwrap_or_default()
}

fn sizes(smaps: &str) -> BTreeMap<u64, u64> {
    let mut sizes = BTreeMap::new();
    let (mut page, mut length) = (0, 0);
    for line in smaps.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let number = || value.split_ascii_whitespace().next()?.parse::<u64>().ok();
        match key {
            "Size" => length = number().unwrap_or(0) << 10,
            "KernelPageSize" => page = number().unwrap_or(0),
            "VmFlags" if value.split_ascii_whitespace().any(|flag| flag == "ht") => {
                *sizes.entry(page).or_default() += length;
            }
            _ => {}
        }
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_is_told_by_its_flag() {
        let smaps = "\
7f0000000000-7f0001000000 rw-p 00000000 00:0f 55   /anon_hugepage (deleted)
Size:              16384 kB
KernelPageSize:     2048 kB
VmFlags: rd wr mr mw me de ht sd 
7f0001000000-7f0002000000 rw-p 00000000 00:00 0 
Size:              16384 kB
KernelPageSize:        4 kB
VmFlags: rd wr mr mw me ac sd 
7f0004000000-7f0006000000 rw-s 00000000 00:0f 56   /anon_hugepage (deleted)
Size:              32768 kB
KernelPageSize:     2048 kB
VmFlags: rd wr sh mr mw me ht 
";
        assert_eq!(sizes(smaps), BTreeMap::from([(2048, 48 << 20)]));
        assert!(of(i32::try_from(std::process::id()).unwrap()).is_empty());
    }
}
