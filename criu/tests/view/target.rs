//! The process under test and its children, which share its memory but for what they wrote since.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::fcntl::{fcntl, FcntlArg, SealFlag};
use nix::sys::memfd::{memfd_create, MFdFlags};

use super::sys;

const PAGE: usize = 4096;
const SHARED: usize = 8 << 20;

/// `target CHILDREN MIB FILE`: each process writes what it has to FILE, then waits for ever.
pub(crate) fn run(arguments: &[String]) -> ! {
    // What the test was started with is no part of it.
    for fd in 3..1024 {
        let _ = nix::unistd::close(fd);
    }
    let [children, mib, ready] = arguments else { panic!("{arguments:?}") };
    let (children, size) = (children.parse::<usize>().unwrap(), mib.parse::<usize>().unwrap() << 20);
    let memory = sys::map(size, false);
    for page in 0..size / PAGE {
        // Holes stay holes, and every other block of 2 MiB has none.
        if page / 512 % 2 == 0 || page % 64 != 63 {
            memory[page * PAGE..][..8].copy_from_slice(&(page as u64).to_le_bytes());
        }
    }
    let shared = sys::map(SHARED, true);
    shared.chunks_mut(2 * PAGE).for_each(|pages| pages[..6].copy_from_slice(b"shared"));
    let memfd: File = memfd_create(c"a name", MFdFlags::MFD_ALLOW_SEALING).unwrap().into();
    memfd.set_len(4 << 20).unwrap();
    memfd.write_all_at(&b"content".repeat(100_000), 4096).unwrap();
    fcntl(&memfd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_WRITE)).unwrap();
    // Written, and then for reading only.
    let constant = sys::map(3 << 20, false);
    constant.fill(b'c');
    sys::protect(constant);
    // With room behind it, to grow.
    let changing = sys::map(4 << 20, false);
    let (changing, room) = changing.split_at_mut(2 << 20);
    changing.chunks_mut(PAGE).for_each(|page| page[0] = b'h');
    sys::unmap(room);
    let tell = |own: &[&[u8]]| {
        let mut line = format!("{} {}", std::process::id(), std::os::unix::process::parent_id());
        line += &format!(" {} {}", shared.as_ptr() as usize, memfd.as_raw_fd());
        for memory in own {
            line += &format!(" {} {}", memory.as_ptr() as usize, memory.len());
        }
        File::options().append(true).open(ready).unwrap().write_all((line + "\n").as_bytes()).unwrap();
    };
    for child in 0..children {
        if !sys::fork() {
            continue;
        }
        // Some pages of its own, some it has given up.
        for page in (child..size / PAGE).step_by(20) {
            memory[page * PAGE + 16..][..4].copy_from_slice(&std::process::id().to_le_bytes());
        }
        sys::give_up(&mut memory[100 * PAGE..116 * PAGE]);
        match child {
            0 => {
                let grown = sys::grow(changing, 3 << 20);
                grown[1 << 20..(2 << 20) + 5 * PAGE].fill(b'i');
                tell(&[memory, constant, grown]);
                wait();
            }
            1 => {
                let (kept, gone) = changing.split_at_mut(1 << 20);
                sys::unmap(gone);
                kept[7] = b'k';
                if sys::fork() {
                    memory[200 * PAGE..230 * PAGE].fill(b'g');
                    sys::give_up(&mut memory[220 * PAGE..250 * PAGE]);
                }
                tell(&[memory, constant, kept]);
                wait();
            }
            // Nothing is shared any more, and there is more than the parent has.
            _ => {
                memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = b'o');
                let more = sys::map(5 << 20, false);
                more.fill(b'm');
                tell(&[memory, constant, changing, more]);
                wait();
            }
        }
    }
    let all = processes(children) - 1;
    while fs::read_to_string(ready).unwrap().lines().count() < all {
        std::thread::sleep(Duration::from_millis(10));
    }
    tell(&[memory, constant, changing]);
    wait()
}

/// How many there are: the second child has a child.
pub(crate) fn processes(children: usize) -> usize {
    1 + children + usize::from(children > 1)
}

fn wait() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}
