//! The values that messages carry. Each is checked where it is made, so an encoded one is always valid.

use std::fmt;

use crate::wire::{DecodeError, OutOfRange, Packet, Reader};

/// An application's process id in the container's pid namespace: at least 2, since 1 is the init.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pid(i32);

impl Pid {
    /// `PID_MAX_LIMIT` of 64-bit kernels (include/linux/threads.h); process ids stay below it.
    const LIMIT: i32 = 4 << 20;

    /// Takes a process id as the kernel gives it.
    ///
    /// # Errors
    /// [`OutOfRange`] for 1, 0, negative numbers and those no kernel hands out.
    pub fn new(pid: i32) -> Result<Self, OutOfRange> {
        if (2..Self::LIMIT).contains(&pid) {
            Ok(Self(pid))
        } else {
            Err(OutOfRange { what: "pid", value: pid.into() })
        }
    }

    /// The number, as system calls want it.
    #[must_use]
    pub fn get(self) -> i32 {
        self.0
    }

    pub(crate) fn put(self, packet: &mut Packet) {
        packet.put_i32(self.0);
    }

    pub(crate) fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self::new(reader.i32()?)?)
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A signal number, 1 to 64. It is a number and not a name because real-time signals travel too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(u8);

impl Signal {
    /// `SIGKILL`.
    pub const KILL: Self = Self(9);
    /// The highest signal number, `SIGRTMAX`.
    pub const MAX: Self = Self(64);

    /// Takes a signal number.
    ///
    /// # Errors
    /// [`OutOfRange`] for anything but 1 to 64.
    pub fn new(signal: i32) -> Result<Self, OutOfRange> {
        match u8::try_from(signal) {
            Ok(number) if (1..=Self::MAX.0).contains(&number) => Ok(Self(number)),
            _ => Err(OutOfRange { what: "signal", value: signal.into() }),
        }
    }

    /// The number, as system calls want it.
    #[must_use]
    pub fn get(self) -> i32 {
        self.0.into()
    }

    pub(crate) fn put(self, packet: &mut Packet) {
        packet.put_u8(self.0);
    }

    pub(crate) fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self::new(reader.u8()?.into())?)
    }

    /// An optional signal is a byte that is 0 for none, as in `kill(2)`.
    pub(crate) fn put_option(signal: Option<Self>, packet: &mut Packet) {
        packet.put_u8(signal.map_or(0, |signal| signal.0));
    }

    pub(crate) fn take_option(reader: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        match reader.u8()? {
            0 => Ok(None),
            number => Ok(Some(Self::new(number.into())?)),
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A system call's error number, 1 to 4095 (the kernel's `MAX_ERRNO`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(u16);

impl Errno {
    /// `ENOENT`, which stands for a command that no directory of `PATH` holds.
    pub const NOT_FOUND: Self = Self(2);
    /// `EIO`, which stands for an error that came without a number.
    pub const IO: Self = Self(5);

    /// Takes an error number.
    ///
    /// # Errors
    /// [`OutOfRange`] for anything but 1 to 4095.
    pub fn new(errno: i32) -> Result<Self, OutOfRange> {
        match u16::try_from(errno) {
            Ok(number) if (1..=4095).contains(&number) => Ok(Self(number)),
            _ => Err(OutOfRange { what: "errno", value: errno.into() }),
        }
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> i32 {
        self.0.into()
    }

    pub(crate) fn put(self, packet: &mut Packet) {
        packet.put_i32(self.0.into());
    }

    pub(crate) fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self::new(reader.i32()?)?)
    }
}

/// The C library's text in the lower case of Go's tables, so that messages read like runc's.
impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let full = std::io::Error::from_raw_os_error(self.get()).to_string();
        let text = full.rsplit_once(" (os error").map_or(full.as_str(), |(text, _)| text);
        f.write_str(&text.to_lowercase())
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(u8),
    /// This signal killed it.
    Signal(Signal),
}

impl ExitStatus {
    /// The code a shell would report: the exit code, or 128 and the signal's number.
    #[must_use]
    pub fn shell_code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal.0,
        }
    }

    pub(crate) fn put_option(status: Option<Self>, packet: &mut Packet) {
        let (variant, value) = match status {
            None => (1, 0),
            Some(Self::Code(code)) => (2, code),
            Some(Self::Signal(signal)) => (3, signal.0),
        };
        packet.put_u8(variant);
        packet.put_u8(value);
    }

    pub(crate) fn take_option(reader: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        match (reader.u8()?, reader.u8()?) {
            (1, 0) => Ok(None),
            (1, value) => Err(OutOfRange { what: "absent exit status", value: value.into() }.into()),
            (2, code) => Ok(Some(Self::Code(code))),
            (3, signal) => Ok(Some(Self::Signal(Signal::new(signal.into())?))),
            (variant, _) => Err(OutOfRange { what: "exit status", value: variant.into() }.into()),
        }
    }

    pub(crate) fn put(self, packet: &mut Packet) {
        Self::put_option(Some(self), packet);
    }

    pub(crate) fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::take_option(reader)?.ok_or_else(|| OutOfRange { what: "exit status", value: 1 }.into())
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What the end of the application means for the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Policy {
    /// The container ends with it, as a container without FastMig does.
    #[default]
    End,
    /// The container lives on without an application.
    Standby,
    /// The container waits for a decision, for a bounded time, and ends with it if none comes
    /// ([`Ask`](crate::Request::Ask)).
    Ask,
}

impl Policy {
    pub(crate) fn put(self, packet: &mut Packet) {
        packet.put_u8(match self {
            Self::End => 1,
            Self::Standby => 2,
            Self::Ask => 3,
        });
    }

    pub(crate) fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            1 => Ok(Self::End),
            2 => Ok(Self::Standby),
            3 => Ok(Self::Ask),
            other => Err(OutOfRange { what: "policy", value: other.into() }.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_where_the_kernel_s_do() {
        for pid in [i32::MIN, -1, 0, 1, 4 << 20, i32::MAX] {
            assert_eq!(Pid::new(pid), Err(OutOfRange { what: "pid", value: pid.into() }));
        }
        assert_eq!(Pid::new(2).unwrap().get(), 2);
        assert_eq!(Pid::new((4 << 20) - 1).unwrap().get(), (4 << 20) - 1);
        for signal in [-1, 0, 65, 256 + 9] {
            assert!(Signal::new(signal).is_err());
        }
        assert_eq!(Signal::new(64), Ok(Signal::MAX));
        for errno in [-2, 0, 4096] {
            assert!(Errno::new(errno).is_err());
        }
    }

    #[test]
    fn shell_codes() {
        assert_eq!(ExitStatus::Code(7).shell_code(), 7);
        assert_eq!(ExitStatus::Signal(Signal::KILL).shell_code(), 137);
        assert_eq!(ExitStatus::Signal(Signal::MAX).shell_code(), 192);
    }

    #[test]
    fn errors_read_like_go_s() {
        assert_eq!(Errno::NOT_FOUND.to_string(), "no such file or directory");
        assert_eq!(Errno::new(8).unwrap().to_string(), "exec format error");
    }
}
