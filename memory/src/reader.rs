//! The memory of another process, read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::PAGE;

/// Reads the memory of a process, running or frozen, by any number of threads.
///
/// By `/proc/PID/mem`: `process_vm_readv` takes apart pages that parent and child share, and does not see those that the process
/// may not read itself.
#[derive(Debug)]
pub struct Reader {
    memory: File,
    lost: AtomicU64,
}

impl Reader {
    /// For the process with this pid on the host, and the memory that it has now: not what it has after an exec.
    ///
    /// # Errors
    /// When it is gone, or we may not.
    pub fn open(host: i32) -> io::Result<Self> {
        Ok(Self { memory: File::open(format!("/proc/{host}/mem"))?, lost: AtomicU64::new(0) })
    }

    /// Fills `into` from `address` on. Pages that are not there (any more) read as zeros.
    ///
    /// # Errors
    /// When the system cannot read, other than for want of a page.
    pub fn read(&self, address: u64, into: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < into.len() {
            let at = address + done as u64;
            match self.memory.read_at(&mut into[done..], at) {
                // Zero: the process has ended, and its memory with it.
                Ok(0) => done += self.lose(at, &mut into[done..]),
                Ok(count) => done += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if matches!(e.raw_os_error(), Some(libc::EIO | libc::EFAULT)) => {
                    done += self.lose(at, &mut into[done..]);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// How many pages were not there.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Gives up on the page at the start of `into`: how many bytes of it there are.
    fn lose(&self, at: u64, into: &mut [u8]) -> usize {
        let left = usize::try_from(PAGE - at % PAGE).unwrap_or(into.len()).min(into.len());
        into[..left].fill(0);
        self.lost.fetch_add(1, Ordering::Relaxed);
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::OwnPages;

    #[test]
    fn what_is_there_is_read_and_what_is_not_is_zeros() {
        let own = OwnPages::new(2).unwrap();
        own.write(0, 7);
        own.write(1, 9);
        let reader = Reader::open(i32::try_from(std::process::id()).unwrap()).unwrap();
        let mut bytes = vec![1; 8192];
        reader.read(own.start(), &mut bytes).unwrap();
        assert_eq!((bytes[0], bytes[4096], bytes[4097]), (7, 9, 0));
        assert_eq!(reader.lost(), 0);
        let mut bytes = vec![1; 100];
        reader.read(0, &mut bytes).unwrap(); // nobody maps the first page
        assert_eq!(bytes, [0; 100]);
        assert_eq!(reader.lost(), 1);
    }
}
