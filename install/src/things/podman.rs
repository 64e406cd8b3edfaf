//! podman's runtime `fastmig`: a drop-in of our own, read at every call.

use std::path::Path;

use super::{Part, Source, Wanted};
use crate::Site;

const FILE: &str = "/etc/containers/containers.conf.d/50-fastmig.conf";
const DROP_IN: &str = include_str!("../../../containerd-config/podman.conf");

pub(super) fn part(site: &Site, source: &Source) -> Part {
    if !site.has_program("podman") {
        return Part::left_alone("podman is not installed: left alone");
    }
    let content = Some(source.in_place(DROP_IN).into_bytes());
    let wanted = Wanted { path: Path::new(FILE).into(), content, mode: 0o644, consumer: None };
    Part { files: vec![wanted], ..Part::default() }
}
