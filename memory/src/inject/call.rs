//! One system call made by a stopped thread that knows nothing of it. Runs in the courier: nothing is allocated here.

use std::io;

use super::halt::{self, Stop};
use crate::error::InjectFailure;
use crate::sys::ptrace::{self, O_SUSPEND_SECCOMP, O_TRACESYSGOOD};
use crate::sys::Registers;

/// The instruction.
pub(super) const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// The code segment of 64-bit programs.
const LONG_MODE: u64 = 0x33;

/// Why it did not work, and what the system said.
pub(super) type Failed = (InjectFailure, io::Error);

/// A stopped thread that has been made ready for calls. [`Puppet::restore`] puts it back, whatever came of them.
#[derive(Debug)]
pub(super) struct Puppet {
    thread: i32,
    instruction: u64,
    registers: Registers,
    signal_mask: u64,
}

impl Puppet {
    /// Takes over `thread`, which is in a stop that [`halt`] has brought it to, or leaves it as it was.
    ///
    /// `memory` is the process's, `instruction` where a `syscall` should be.
    pub(super) fn take(thread: i32, instruction: u64, memory: &impl ReadAt) -> Result<Self, Failed> {
        let registers = ptrace::registers(thread).map_err(gone)?;
        if registers.cs != LONG_MODE {
            return Err((InjectFailure::Foreign, io::ErrorKind::Unsupported.into()));
        }
        // It may have executed another program since somebody looked.
        let mut found = [0; 2];
        memory.read_at(&mut found, instruction).map_err(busy)?;
        if found != SYSCALL || in_restartable_sequence(thread, &registers, memory).map_err(busy)? {
            return Err(busy(io::ErrorKind::WouldBlock.into()));
        }
        // Without it a filter might kill the process for the call. EPERM where we are under a filter ourselves.
        let suspended = ptrace::set_options(thread, O_TRACESYSGOOD | O_SUSPEND_SECCOMP);
        suspended.map_err(|e| (InjectFailure::Trace, e))?;
        // A handler must not run with registers that are not the program's.
        let signal_mask = ptrace::signal_mask(thread).map_err(gone)?;
        ptrace::set_signal_mask(thread, !0).map_err(gone)?;
        Ok(Self { thread, instruction, registers, signal_mask })
    }

    /// What the call returned.
    ///
    /// By syscall stops and not by single steps: a step reports by SIGTRAP, and the kernel would reset the program's handler for it.
    pub(super) fn call(&self, number: u64, arguments: [u64; 3]) -> Result<u64, Failed> {
        let mut registers = self.registers;
        registers.rip = self.instruction;
        registers.rax = number;
        registers.orig_rax = u64::MAX; // not in a call that might be restarted
        [registers.rdi, registers.rsi, registers.rdx] = arguments;
        ptrace::set_registers(self.thread, &registers).map_err(gone)?;
        self.go_to_syscall_stop()?; // entry
        self.go_to_syscall_stop()?; // exit
        let returned = ptrace::registers(self.thread).map_err(gone)?.rax;
        // The kernel's way to return an error.
        match i32::try_from(returned.wrapping_neg()) {
            Ok(errno @ 1..=4095) => Err((InjectFailure::Call, io::Error::from_raw_os_error(errno))),
            _ => Ok(returned),
        }
    }

    fn go_to_syscall_stop(&self) -> Result<(), Failed> {
        let mut signal = 0;
        loop {
            ptrace::go_to_call(self.thread, signal).map_err(gone)?;
            match self.next_stop()? {
                Stop::Syscall => return Ok(()),
                Stop::Trap => signal = 0,
                Stop::Signal(number) => signal = number,
            }
        }
    }

    /// Without a limit: let go of now, it would run on with registers that are not its own. It is in no call that waits, and comes
    /// as soon as it is given a processor, or thawed.
    fn next_stop(&self) -> Result<Stop, Failed> {
        halt::next_stop(self.thread, None)
    }

    /// Puts it back into a stop like the one it was taken in, with its registers and its mask.
    ///
    /// From there the kernel itself restarts the call that the stop has interrupted, as it would have without us.
    pub(super) fn restore(self) -> Result<(), Failed> {
        let stopped = ptrace::interrupt(self.thread).map_err(gone).and_then(|()| {
            let mut signal = 0;
            loop {
                ptrace::go_on(self.thread, signal).map_err(gone)?;
                match self.next_stop()? {
                    Stop::Trap => return Ok(()),
                    Stop::Syscall => signal = 0,
                    Stop::Signal(number) => signal = number,
                }
            }
        });
        // Also where that has failed: wherever it stands, these are its own.
        ptrace::set_registers(self.thread, &self.registers).map_err(gone)?;
        ptrace::set_signal_mask(self.thread, self.signal_mask).map_err(gone)?;
        stopped
    }
}

/// Memory of the process, by address.
pub(super) trait ReadAt {
    fn read_at(&self, into: &mut [u8], address: u64) -> io::Result<()>;
}

impl ReadAt for std::fs::File {
    fn read_at(&self, into: &mut [u8], address: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, into, address)
    }
}

/// Whether the thread is inside of a restartable sequence: the kernel would not see that it was interrupted there.
fn in_restartable_sequence(thread: i32, registers: &Registers, memory: &impl ReadAt) -> io::Result<bool> {
    /// Of the pointer to the sequence in `struct rseq`.
    const SEQUENCE: u64 = 8;
    let Ok(rseq) = ptrace::rseq(thread) else { return Ok(false) }; // a kernel before 5.13
    if rseq.pointer == 0 {
        return Ok(false);
    }
    let word = |address: u64| {
        let mut bytes = [0; 8];
        memory.read_at(&mut bytes, address).map(|()| u64::from_ne_bytes(bytes))
    };
    let sequence = word(rseq.pointer + SEQUENCE)?;
    if sequence == 0 {
        return Ok(false);
    }
    // struct rseq_cs: version and flags, start, length, where to go when interrupted.
    let (start, length) = (word(sequence + 8)?, word(sequence + 16)?);
    Ok(registers.rip.wrapping_sub(start) < length)
}

pub(super) fn gone(e: io::Error) -> Failed {
    (InjectFailure::Gone, e)
}

fn busy(e: io::Error) -> Failed {
    (InjectFailure::Busy, e)
}
