//! Which containers are left to runc.

use fastmig_control::INIT_PATH;

use super::annotations::{bad_annotation, MODE};
use super::Spec;
use crate::start_options::Mode;
use crate::Error;

/// Commands that insist on being PID 1.
const MUST_BE_FIRST: &[&str] =
    &["/sbin/init", "/usr/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd", "/init", "systemd"];

impl Spec {
    /// A container whose PID 1 is not its own, must be the image's own, or is nobody's business.
    pub(super) fn why_left_alone(&self, command: &[String]) -> Result<Option<String>, Error> {
        match self.annotation(MODE) {
            Some("off") => return Ok(Some(format!("annotation {MODE}=off"))),
            None if self.defaults.mode == Mode::Off => {
                return Ok(Some(format!("defaults.mode is off and no annotation {MODE}=warm asks for it")));
            }
            None | Some("warm") => {}
            Some(value) => return Err(bad_annotation(MODE, value, "it must be off or warm")),
        }
        if self.annotation("io.kubernetes.cri.container-type") == Some("sandbox") {
            return Ok(Some("it is a pod's sandbox".into()));
        }
        let Some(first) = command.first() else { return Ok(Some("it has no command".into())) };
        if first == INIT_PATH {
            return Ok(Some("another FastMig has put its init above it already".into()));
        }
        if MUST_BE_FIRST.contains(&first.as_str()) {
            return Ok(Some(format!("its command {first} must be PID 1")));
        }
        let namespaces = self.value["linux"]["namespaces"].as_array();
        let of = |kind: &str| namespaces.into_iter().flatten().find(|n| n["type"] == kind);
        match of("pid") {
            None => return Ok(Some("it has no pid namespace of its own (--pid=host)".into())),
            Some(n) if n["path"].as_str().is_some_and(|path| !path.is_empty()) => {
                return Ok(Some("it shares another container's pid namespace".into()));
            }
            Some(_) => {}
        }
        if of("mount").is_none() {
            return Ok(Some("it has no mount namespace of its own".into()));
        }
        if of("user").is_some() {
            return Ok(Some("it has a user namespace, which FastMig does not support yet".into()));
        }
        Ok(None)
    }
}
