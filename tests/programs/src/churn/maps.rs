//! How the kernel says that pages are protected.

use std::fs;
use std::io;

use nix::sys::mman::ProtFlags;

/// All mappings of this process at some moment, in order.
#[derive(Debug)]
pub(super) struct Protections(Vec<(usize, usize, ProtFlags)>);

impl Protections {
    pub(super) fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/self/maps")?))
    }

    fn parse(maps: &str) -> Self {
        let line = |line: &str| {
            let (range, rest) = line.split_once(' ')?;
            let (start, end) = range.split_once('-')?;
            let number = |text| usize::from_str_radix(text, 16).ok();
            Some((number(start)?, number(end)?, protection(rest.get(..3)?)))
        };
        Self(maps.lines().filter_map(line).collect())
    }

    /// How the page at `address` is protected; none is mapped there otherwise.
    pub(super) fn at(&self, address: usize) -> Option<ProtFlags> {
        let next = self.0.partition_point(|(start, _, _)| *start <= address);
        let (_, end, protection) = self.0.get(next.checked_sub(1)?)?;
        (address < *end).then_some(*protection)
    }
}

fn protection(letters: &str) -> ProtFlags {
    let flags = [('r', ProtFlags::PROT_READ), ('w', ProtFlags::PROT_WRITE), ('x', ProtFlags::PROT_EXEC)];
    flags.into_iter().filter(|(letter, _)| letters.contains(*letter)).map(|(_, flag)| flag).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protections_are_found_by_address() {
        let maps =
            "1000-3000 rw-p 00000000 00:00 0 \n3000-4000 ---p 00000000 00:00 0 [x]\n5000-6000 r--s 0 0:0 0\n";
        let protections = Protections::parse(maps);
        assert_eq!(protections.at(0x2000), Some(ProtFlags::PROT_READ | ProtFlags::PROT_WRITE));
        assert_eq!(protections.at(0x3fff), Some(ProtFlags::PROT_NONE));
        assert_eq!(protections.at(0x5000), Some(ProtFlags::PROT_READ));
        assert_eq!(
            (protections.at(0x4000), protections.at(0x500), protections.at(0x6000)),
            (None, None, None)
        );
    }
}
