//! The frame of zeros that the kernel shares among all who have only read.

use std::sync::OnceLock;

use crate::pagemap;
use crate::scan::Scanner;
use crate::sys::OwnPages;
use crate::{Span, PAGE};

/// Nothing where frames are not told to us.
pub(crate) fn frame() -> Option<u64> {
    static FRAME: OnceLock<Option<u64>> = OnceLock::new();
    *FRAME.get_or_init(|| {
        let own = OwnPages::new(1).ok()?;
        own.read(0);
        let me = i32::try_from(std::process::id()).ok()?;
        let scanner = Scanner::open(me).ok()?;
        let mut frame = None;
        let span = Span { start: own.start(), end: own.start() + PAGE };
        pagemap::entries(scanner.pagemap(), span, |_, entry| frame = entry.frame()).ok()?;
        frame
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_is_one_where_frames_are_told() {
        assert_eq!(super::frame(), super::frame());
    }
}
