//! CRIU started under the library: its descriptors, and how it is told.

use std::io;
use std::os::fd::RawFd;

use fastmig_criu_view_layout::VARIABLE;

use super::{DumpView, RestoreView};
use crate::{Launch, LaunchError};

/// What the library gets: descriptors of the table, and for a restore of the socket.
#[derive(Debug)]
pub(crate) struct Passed {
    table: RawFd,
    socket: Option<RawFd>,
}

impl Passed {
    /// What the library is told in the environment, with `rpc` the descriptor on which CRIU gets its requests.
    pub(crate) fn variable(&self, rpc: RawFd) -> String {
        let table = self.table;
        self.socket.map_or_else(
            || format!("{VARIABLE}={table}"),
            |socket| format!("{VARIABLE}={table},{socket},{rpc}"),
        )
    }
}

impl Launch<'_> {
    /// Has a dump see memory as `view` shows it. For a worker alone, not for the stream mode.
    ///
    /// # Errors
    /// When the bundle has no library for that.
    pub fn with_dump_view(mut self, view: &DumpView) -> Result<Self, LaunchError> {
        self.need_library()?;
        let table = self.pass(view.descriptor().map_err(failed)?);
        self.under(Passed { table, socket: None });
        Ok(self)
    }

    /// Has a restore find the memory that is filled in `view`, which serves one worker. For a worker alone, not for the
    /// stream mode.
    ///
    /// # Errors
    /// When the bundle has no library for that, or another worker was started with this view.
    pub fn with_restore_view(mut self, view: &RestoreView) -> Result<Self, LaunchError> {
        self.need_library()?;
        let (table, socket) = view.descriptors().map_err(failed)?;
        let (table, socket) = (self.pass(table), self.pass(socket));
        self.under(Passed { table, socket: Some(socket) });
        Ok(self)
    }

    fn need_library(&self) -> Result<(), LaunchError> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "the CRIU bundle has no such library");
        self.bundle().view().map(drop).ok_or_else(|| failed(missing()))
    }
}

fn failed(source: io::Error) -> LaunchError {
    LaunchError::Prepare { what: "have CRIU see memory otherwise", source }
}
