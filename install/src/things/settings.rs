//! FastMig's own settings: the commented file with the built-in values, where there is none.

use std::path::Path;

use super::{Part, Wanted};
use crate::{Error, Site};

const FILE: &str = "/etc/fastmig/config.toml";
const BUILT_IN: &str = include_str!("../../../containerd-config/fastmig.toml");

pub(super) fn part(site: &Site) -> Result<Part, Error> {
    let path = Path::new(FILE);
    if site.read(path)?.is_some() {
        return Ok(Part::default());
    }
    let wanted = Wanted { path: path.into(), content: Some(BUILT_IN.into()), mode: 0o644, consumer: None };
    Ok(Part { files: vec![wanted], ..Part::default() })
}
