//! The daemon's systemd unit, where there is a systemd.

use std::path::Path;

use super::{Part, Source, Wanted};
use crate::{Error, Site};

const SYSTEMD: &str = "/etc/systemd/system";
const UNIT: &str = "/etc/systemd/system/fastmigd.service";
const TEXT: &str = include_str!("../../../packaging/systemd/fastmigd.service");

pub(super) fn part(site: &Site, source: &Source) -> Result<Part, Error> {
    // A package brings its own.
    if source.from.is_none() || site.metadata(Path::new(SYSTEMD))?.is_none() {
        return Ok(Part::default());
    }
    let text = TEXT.replace("/usr/local/bin/fastmigd", &source.program("fastmigd").to_string_lossy());
    let wanted = Wanted { path: UNIT.into(), content: Some(text.into_bytes()), mode: 0o644, consumer: None };
    let notes = match site.read(Path::new(UNIT))? {
        Some(_) => Vec::new(),
        None => vec!["the daemon is started by: systemctl enable --now fastmigd".into()],
    };
    Ok(Part { files: vec![wanted], notes, restart: None })
}
