//! The two machines: what the application's code may rely on, and what brings it up again.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::Reasons;
use crate::{check, image, subject, Config, Container, Error};

/// How many missing features are named.
const NAMED: usize = 20;

/// Where the application runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Machine {
    architecture: String,
    cpu_features: BTreeSet<String>,
    kernel: String,
    criu: String,
    fastmig: String,
}

impl Machine {
    pub(super) fn of(container: &Container) -> Result<Self, Error> {
        Ok(Self {
            architecture: std::env::consts::ARCH.into(),
            cpu_features: image::cpu_features(),
            kernel: subject::kernel_release(),
            criu: container.criu_bundle()?.version().into(),
            fastmig: env!("CARGO_PKG_VERSION").into(),
        })
    }

    pub(super) fn check(&self, container: &Container, reasons: &mut Reasons) {
        let Some(here) = reasons.take(Self::of(container)) else { return };
        if self.architecture != here.architecture {
            reasons.add(
                format!(
                    "the application runs on {}, this machine is {}",
                    self.architecture, here.architecture
                ),
                "choose a destination of the same architecture",
            );
            return;
        }
        let missing: Vec<&str> =
            self.cpu_features.difference(&here.cpu_features).map(String::as_str).take(NAMED).collect();
        if !missing.is_empty() {
            reasons.add(
                format!("this machine's CPU lacks {}", missing.join(", ")),
                "choose a destination whose CPU has them",
            );
        }
        if version(&here.criu) < version(&self.criu) {
            reasons.add(
                format!("CRIU {} is older than the source's {}", here.criu, self.criu),
                format!("install FastMig {} here", self.fastmig),
            );
        }
        if let Err(e) = probe(&container.config) {
            let kernel = here.kernel;
            reasons.add(
                format!("CRIU does not work on this machine's kernel {kernel}: {}", e.report()),
                format!("see fastmig check; the source's kernel is {}", self.kernel),
            );
        }
    }
}

/// Major and minor number; images of an older one are read.
fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Lets CRIU try this kernel, once in a process's life; a failure may have passed the next time.
fn probe(config: &Config) -> Result<(), Error> {
    static WORKS: OnceLock<()> = OnceLock::new();
    if WORKS.get().is_none() {
        check::probe(config)?;
        WORKS.get_or_init(|| ());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(version("4.10") > version("4.9.3-1"));
        assert_eq!(version("4.2.1"), version("4.2"));
        assert!(version("3.17.1") < version("4.0"));
    }
}
