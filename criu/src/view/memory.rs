//! The memory of the CRIU that waits, from outside.

use std::io::{self, IoSlice, IoSliceMut};

use nix::sys::uio::{process_vm_readv, process_vm_writev, RemoteIoVec};
use nix::unistd::Pid;

pub(super) fn write(process: Pid, mut address: u64, mut content: &[u8]) -> io::Result<()> {
    while !content.is_empty() {
        let remote = RemoteIoVec { base: place(address)?, len: content.len() };
        let count = process_vm_writev(process, &[IoSlice::new(content)], &[remote])?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        address += count as u64;
        content = &content[count..];
    }
    Ok(())
}

pub(super) fn read(process: Pid, mut address: u64, mut content: &mut [u8]) -> io::Result<()> {
    while !content.is_empty() {
        let remote = RemoteIoVec { base: place(address)?, len: content.len() };
        let count = process_vm_readv(process, &mut [IoSliceMut::new(content)], &[remote])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        address += count as u64;
        content = &mut content[count..];
    }
    Ok(())
}

fn place(address: u64) -> io::Result<usize> {
    usize::try_from(address).map_err(|_| io::ErrorKind::InvalidInput.into())
}
