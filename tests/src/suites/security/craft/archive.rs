//! Archives of a root file system, as a checkpoint brings them, with whatever in them.

use std::io::{Read, Write};

use anyhow::Result;
use lz4_flex::frame::FrameEncoder;
use tar::{Builder, EntryType, Header};

/// What FastMig says of an entry beyond what tar can.
const MARK: &str = "FASTMIG.mark";

/// The target of a link, in hexadecimal.
const TARGET: &str = "FASTMIG.target";

/// An archive in the making.
pub(in crate::suites::security) struct Archive(Builder<FrameEncoder<Vec<u8>>>);

impl Archive {
    pub(in crate::suites::security) fn new() -> Self {
        Self(Builder::new(FrameEncoder::new(Vec::new())))
    }

    /// An entry with whatever name.
    pub(in crate::suites::security) fn entry(
        &mut self,
        name: &str,
        (kind, mode): (EntryType, u32),
        size: u64,
        content: impl Read,
    ) -> Result<()> {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size);
        header.set_cksum();
        Ok(self.0.append(&header, content)?)
    }

    pub(in crate::suites::security) fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entry(name, (EntryType::Regular, mode), content.len() as u64, content)
    }

    pub(in crate::suites::security) fn directory(&mut self, name: &str) -> Result<()> {
        self.entry(name, (EntryType::Directory, 0o755), 0, std::io::empty())
    }

    pub(in crate::suites::security) fn symlink(&mut self, name: &str, target: &str) -> Result<()> {
        let target = hex::encode(target);
        self.0.append_pax_extensions([(TARGET, target.as_bytes())])?;
        self.entry(name, (EntryType::Symlink, 0o777), 0, std::io::empty())
    }

    /// A hard link.
    pub(in crate::suites::security) fn link(&mut self, name: &str, target: &str) -> Result<()> {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(EntryType::Link);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_cksum();
        Ok(self.0.append(&header, std::io::empty())?)
    }

    /// An entry that FastMig reads as more than a file.
    pub(in crate::suites::security) fn marked(&mut self, name: &str, mark: &str) -> Result<()> {
        self.0.append_pax_extensions([(MARK, mark.as_bytes())])?;
        self.entry(name, (EntryType::Regular, 0o644), 0, std::io::empty())
    }

    /// Its bytes, with an end.
    pub(in crate::suites::security) fn finish(mut self) -> Result<Vec<u8>> {
        self.marked("end", "end")?;
        let mut encoder = self.0.into_inner()?;
        encoder.flush()?;
        Ok(encoder.finish()?)
    }
}
