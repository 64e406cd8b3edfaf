//! The pages of stopped processes, read where they are.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::pagemap::{PageImage, Range};

/// The images of pages that a dump has left out, readable as if it had not. The processes must stay stopped.
#[derive(Debug)]
pub struct ProcessMemory {
    images: BTreeMap<String, Image>,
}

#[derive(Debug)]
struct Image {
    memory: File,
    size: u64,
    /// By their place in the image.
    ranges: BTreeMap<u64, Range>,
}

impl ProcessMemory {
    /// For images whose processes `host_pid` knows by their numbers in the container.
    ///
    /// # Errors
    /// When one of the processes is gone.
    pub fn open(images: &[PageImage], host_pid: impl Fn(i32) -> Option<i32>) -> io::Result<Self> {
        let mut opened = BTreeMap::new();
        for image in images {
            let gone = || io::Error::new(io::ErrorKind::NotFound, format!("process {} is gone", image.pid));
            let pid = host_pid(image.pid).ok_or_else(gone)?;
            // Not process_vm_readv, which takes the sharing of pages between parent and child apart.
            let memory = File::open(format!("/proc/{pid}/mem"))?;
            let mut size = 0;
            let mut ranges = BTreeMap::new();
            for range in &image.ranges {
                ranges.insert(size, *range);
                size += range.length;
            }
            opened.insert(image.name.clone(), Image { memory, size, ranges });
        }
        Ok(Self { images: opened })
    }

    /// Names and sizes in bytes.
    #[must_use]
    pub fn images(&self) -> Vec<(String, u64)> {
        self.images.iter().map(|(name, image)| (name.clone(), image.size)).collect()
    }

    /// Fills `into` from `offset` of an image on.
    ///
    /// # Errors
    /// When there is no such image or place, or the process is gone.
    pub fn read(&self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let nothing = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{name}: {what}"));
        let image = self.images.get(name).ok_or_else(|| nothing("no such image of memory"))?;
        let (mut at, mut rest) = (offset, into);
        while !rest.is_empty() {
            let (start, range) =
                image.ranges.range(..=at).next_back().ok_or_else(|| nothing("it is empty"))?;
            let skipped = at - start;
            let left = range.length.checked_sub(skipped).filter(|left| *left > 0);
            let left = left.ok_or_else(|| nothing("nothing is there"))?;
            let count = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let (now, later) = rest.split_at_mut(count);
            image.memory.read_exact_at(now, range.address + skipped)?;
            at += count as u64;
            rest = later;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_read_across_its_ranges() {
        let memory: Vec<u8> = (0..=255).cycle().take(3 * 4096).collect();
        let base = memory.as_ptr() as u64;
        let range = |from: u64| Range { address: base + from, length: 4096 };
        let ranges = vec![range(8192), range(0)];
        let image = PageImage { name: "pages-1.img".into(), pid: 77, ranges };
        let me = i32::try_from(std::process::id()).unwrap();
        let opened = ProcessMemory::open(&[image], |pid| (pid == 77).then_some(me)).unwrap();
        assert_eq!(opened.images(), [("pages-1.img".to_owned(), 8192)]);
        let mut whole = vec![1; 8192];
        opened.read("pages-1.img", 0, &mut whole).unwrap();
        assert_eq!(whole, [&memory[8192..], &memory[..4096]].concat());
        let mut middle = [0; 6];
        opened.read("pages-1.img", 4093, &mut middle).unwrap();
        assert_eq!(middle, whole[4093..4099]);
        assert!(opened.read("pages-1.img", 8190, &mut middle).is_err());
        assert!(opened.read("pages-2.img", 0, &mut middle).is_err());
    }
}
