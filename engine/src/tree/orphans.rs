//! Orphans of the application stay in its tree: the root of the application inherits them, not the init.
//!
//! In a running application the init has seen to that. CRIU restores the attribute late: an orphan whose session
//! leader has ended hangs below a helper until then, and would be left to the init when the helper ends. So the root
//! is made an heir before CRIU forks anything below it, by a system call that is put into its mouth.

use std::io;

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::make_heir;

/// Elsewhere, a daemon may leave the tree: its next checkpoint says so.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn make_heir(_: i32) -> io::Result<()> {
    Ok(())
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::time::Duration;

    use nix::errno::Errno;
    use nix::sys::ptrace;
    use nix::sys::signal::Signal;
    use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
    use nix::unistd::Pid;

    use super::io;

    /// `syscall`, as it stands in memory.
    const SYSCALL: [u8; 2] = [0x0f, 0x05];

    /// The process is on its way into a system call when it is asked for.
    const ATTEMPTS: usize = 200;
    const PAUSE: Duration = Duration::from_millis(1);

    /// Makes host process `pid`, which waits in a system call, the heir of its descendants' orphans.
    pub(crate) fn make_heir(pid: i32) -> io::Result<()> {
        for _ in 0..ATTEMPTS {
            let traced = Traced::stop(Pid::from_raw(pid))?;
            if traced.waits_in_call()? {
                return traced.call(libc::SYS_prctl, [libc::PR_SET_CHILD_SUBREAPER.unsigned_abs().into(), 1]);
            }
            drop(traced);
            std::thread::sleep(PAUSE);
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// A stopped process; it goes on as if nothing had been when dropped.
    struct Traced {
        pid: Pid,
        registers: libc::user_regs_struct,
    }

    impl Traced {
        fn stop(pid: Pid) -> io::Result<Self> {
            ptrace::seize(pid, ptrace::Options::empty())?;
            let stopped = ptrace::interrupt(pid).and_then(|()| wait(pid)).and_then(|_| ptrace::getregs(pid));
            match stopped {
                Ok(registers) => Ok(Self { pid, registers }),
                Err(e) => {
                    // It is gone, mostly.
                    let _ = ptrace::detach(pid, None);
                    Err(e.into())
                }
            }
        }

        fn waits_in_call(&self) -> io::Result<bool> {
            let at = self.registers.rip.wrapping_sub(SYSCALL.len() as u64);
            let word = ptrace::read(self.pid, at as ptrace::AddressType)?;
            // Not negative: not in a call that was interrupted.
            let in_call = signed(self.registers.orig_rax) >= 0;
            Ok(in_call && word.to_ne_bytes().starts_with(&SYSCALL))
        }

        /// Lets it execute the instruction that it waits in once more, for another call.
        fn call(&self, number: libc::c_long, arguments: [u64; 2]) -> io::Result<()> {
            let mut registers = self.registers;
            registers.rip = registers.rip.wrapping_sub(SYSCALL.len() as u64);
            registers.rax = u64::from_ne_bytes(number.to_ne_bytes());
            // No call of its own to be started again before this one.
            registers.orig_rax = u64::MAX;
            [registers.rdi, registers.rsi] = arguments;
            [registers.rdx, registers.r10, registers.r8] = [0; 3];
            ptrace::setregs(self.pid, registers)?;
            ptrace::step(self.pid, None)?;
            match wait(self.pid)? {
                WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
                other => return Err(io::Error::other(format!("unexpected stop {other:?}"))),
            }
            let result = signed(ptrace::getregs(self.pid)?.rax);
            match i32::try_from(-result) {
                Ok(0) => Ok(()),
                errno => Err(io::Error::from_raw_os_error(errno.unwrap_or(libc::EINVAL))),
            }
        }
    }

    impl Drop for Traced {
        fn drop(&mut self) {
            // Its own call begins again. Whoever is gone by now needs nothing.
            let _ = ptrace::setregs(self.pid, self.registers);
            let _ = ptrace::detach(self.pid, None);
        }
    }

    fn signed(register: u64) -> i64 {
        i64::from_ne_bytes(register.to_ne_bytes())
    }

    fn wait(pid: Pid) -> Result<WaitStatus, Errno> {
        loop {
            match waitpid(pid, Some(WaitPidFlag::__WALL)) {
                Err(Errno::EINTR) => {}
                result => return result,
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use std::process::{Command, Stdio};

        use super::*;

        /// A child that sleeps on, and whose own child's orphan it then inherits.
        #[test]
        fn a_sleeping_process_inherits_orphans_and_sleeps_on() {
            let script = "read go; (sleep 30 & echo $!); read end; exit 7";
            let mut child = Command::new("sh")
                .args(["-c", script])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            make_heir(child.id().try_into().unwrap()).unwrap();
            let mut stdin = child.stdin.take().unwrap();
            io::Write::write_all(&mut stdin, b"go\n").unwrap();
            let mut line = String::new();
            let mut stdout = io::BufReader::new(child.stdout.take().unwrap());
            io::BufRead::read_line(&mut stdout, &mut line).unwrap();
            let orphan = line.trim().parse().unwrap();
            let heir = i32::try_from(child.id()).unwrap();
            let parent = || procfs::process::Process::new(orphan).unwrap().stat().unwrap().ppid;
            for _ in 0..1000 {
                if parent() == heir {
                    break;
                }
                std::thread::sleep(PAUSE);
            }
            assert_eq!(parent(), heir);
            nix::sys::signal::kill(Pid::from_raw(orphan), Signal::SIGKILL).unwrap();
            io::Write::write_all(&mut stdin, b"end\n").unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(7));
        }
    }
}
