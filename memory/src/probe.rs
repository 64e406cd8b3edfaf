//! Which method works here: tried on a child of our own, not read from versions.

use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{pipe_with, PipeFlags};
use rustix::process::{Pid, Signal, WaitOptions};

use crate::scan::Scanner;
use crate::sys::{self, OwnPages};
use crate::watch::{Registration, Watch};
use crate::{Method, Span, Unsupported, PAGE, PAGE_BYTES};

const PAGES: u64 = 256;
/// The page that the child writes when it is told to.
const WRITTEN: usize = 77;

/// Which method sees the writes of a process on this kernel.
///
/// # Errors
/// What speaks against each.
pub fn probe() -> Result<Method, Unsupported> {
    let write_protect = match attempt(Method::WriteProtect) {
        Ok(()) => return Ok(Method::WriteProtect),
        Err(reason) => reason,
    };
    match attempt(Method::SoftDirty) {
        Ok(()) => Ok(Method::SoftDirty),
        Err(soft_dirty) => Err(Unsupported { write_protect, soft_dirty }),
    }
}

/// Tries it out; why it does not work.
fn attempt(method: Method) -> Result<(), String> {
    if rustix::param::page_size() != PAGE_BYTES {
        return Err("pages have another size than 4 KiB".into());
    }
    let pages = OwnPages::new(256).map_err(|e| e.to_string())?;
    for page in 0..256 {
        pages.write(page, 1);
    }
    let child = Child::start(&pages).map_err(|e| format!("no child to try it on: {e}"))?;
    // It has its own copies then.
    child.tell_to_write().map_err(|e| e.to_string())?;
    let span = Span { start: pages.start(), end: pages.start() + PAGES * PAGE };
    let (mut watch, _) = Watch::begin(method, child.pid).map_err(|e| with_source(&e))?;
    let scanner = Scanner::open(child.pid).map_err(|e| e.to_string())?;
    if watch.register(&scanner, span) == Registration::Refused {
        return Err("the kernel does not take asynchronous write-protection".into());
    }
    watch.take(child.pid, &scanner, &[span]).map_err(|e| with_source(&e))?;
    let written = || -> Result<_, String> {
        let looks = watch.look(&scanner, &[span]).map_err(|e| e.to_string())?;
        Ok(looks.into_iter().flat_map(|look| look.written.into_vec()).collect::<Vec<_>>())
    };
    if !written()?.is_empty() {
        return Err("the kernel takes all pages for written".into());
    }
    child.tell_to_write().map_err(|e| e.to_string())?;
    let start = pages.start() + WRITTEN as u64 * PAGE;
    if written()? != [Span { start, end: start + PAGE }] {
        return Err("the kernel does not tell which page was written".into());
    }
    Ok(())
}

fn with_source(e: &crate::Error) -> String {
    std::error::Error::source(e).map_or_else(|| e.to_string(), |source| format!("{e}: {source}"))
}

/// A child that writes one page whenever it is told to. Killed when dropped.
struct Child {
    pid: i32,
    orders: OwnedFd,
    answers: OwnedFd,
}

impl Child {
    fn start(pages: &OwnPages) -> std::io::Result<Self> {
        let (theirs, orders) = pipe_with(PipeFlags::CLOEXEC)?;
        let (answers, done) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut ours = Some(orders);
        let pid = sys::fork(|| {
            ours = None; // or it would not see our end
            while let Ok(1) = rustix::io::read(theirs.as_fd(), &mut [0; 1]) {
                pages.write(WRITTEN, 2);
                if rustix::io::write(&done, &[0]).is_err() {
                    break;
                }
            }
            0
        })?;
        let orders = ours.ok_or(std::io::ErrorKind::NotConnected)?;
        Ok(Self { pid, orders, answers })
    }

    fn tell_to_write(&self) -> std::io::Result<()> {
        rustix::io::write(&self.orders, &[0])?;
        rustix::io::read(&self.answers, &mut [0; 1])?;
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            // Not waited for yet: the pid is the child's.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_found_or_told_why_not() {
        match probe() {
            Ok(method) => {
                eprintln!("{method:?}");
                attempt(method).unwrap();
            }
            Err(e) => {
                eprintln!("skipped: {e}");
                assert!(!e.write_protect.is_empty() && !e.soft_dirty.is_empty());
            }
        }
        if let Err(reason) = attempt(Method::SoftDirty) {
            eprintln!("skipped: soft-dirty bits: {reason}");
        }
    }
}
