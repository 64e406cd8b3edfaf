//! Idle processors, kept awake while an application stands still.
//!
//! CRIU and the processes that it dumps or restores wake each other some hundred times. A processor that has gone to sleep
//! meanwhile needs tens of microseconds for it, above all a virtual one, which its host has to schedule first.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Who holds it open says how many microseconds a processor may take to wake up, as four bytes in the machine's order; at none
/// idle ones poll (PM quality of service, Linux 2.6.25 and later).
const LATENCY: &str = "/dev/cpu_dma_latency";

/// Processors do not sleep while this is kept, where the kernel lets us ask for that: it costs what an idle processor saves.
#[derive(Debug)]
pub(crate) struct Awake {
    _held: Option<File>,
}

impl Awake {
    /// From now on.
    pub(crate) fn keep() -> Self {
        let held = ask(LATENCY.as_ref());
        if let Err(error) = &held {
            tracing::debug!(%error, "processors may sleep during the freeze");
        }
        Self { _held: held.ok() }
    }
}

fn ask(device: &Path) -> io::Result<File> {
    let mut device = File::options().write(true).open(device)?;
    device.write_all(&0_i32.to_ne_bytes())?;
    Ok(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_latency_is_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let device = directory.path().join("device");
        assert_eq!(ask(&device).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&device, "").unwrap();
        let held = ask(&device).unwrap();
        assert_eq!(std::fs::read(&device).unwrap(), [0; 4]);
        drop(held);
    }
}
