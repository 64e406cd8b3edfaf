//! The same container once more, on another host: its image and its settings, by whichever client made it.
//!
//! The source describes a container in a [`Recipe`]; the destination checks it against its own settings, takes the image in
//! when it lacks it, and makes the container in standby: its application does not come up. What a recipe cannot say is
//! refused by name, never left out: each client's description is read field by field, and after the creation the new
//! container is described in its turn and must come out the same.
//!
//! A recipe comes from a peer that may be hostile. A peer that may ask for a creation may run any program as any user of a
//! container, with its client's ordinary confinement; what goes beyond that, [`fastmig_engine::config::Create`] must allow. Nothing of a recipe
//! reaches a shell, no option's value is ever an option of its own, and no image may take the name of another.
//!
//! The files, in the order of the flow:
//!
//! | file | what it does |
//! |---|---|
//! | [`recipe`], [`settings`] | what travels: client, image, runtime, settings |
//! | [`describe`] | which client made a container, and what that client says of it |
//! | `fields` | reads a description so that nothing in it is overlooked |
//! | `inspect`, `spec`, `nerdctl` | docker's and podman's words; an OCI spec and ctr's; nerdctl's labels |
//! | [`image`], `archive` | which image it is, its way out and in; what an archive may name |
//! | `valid`, `policy` | what no recipe may say, and what this host allows |
//! | [`create`], `compare` | the flow on the destination, and the way back; whether what was made is what was asked for |
//! | `options`, `ctr_options` | the settings as a command line, for docker and its like and for ctr |
//! | `call`, [`error`] | programs with a limit and a clean environment; what went wrong |

#![forbid(unsafe_code)]

mod archive;
mod call;
#[cfg(test)]
mod captured;
mod compare;
pub mod create;
mod ctr_options;
pub mod describe;
pub mod error;
mod fields;
pub mod image;
mod inspect;
mod nerdctl;
mod options;
mod policy;
pub mod recipe;
pub mod settings;
mod spec;
mod valid;

use std::sync::Arc;
use std::time::Duration;

pub use create::Created;
pub use error::Error;
pub use recipe::{Client, ImageIdentity, Recipe};

/// How long the programs that are called may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// One question or one creation.
    pub command: Duration,
    /// An image's way out of a client, or into it.
    pub image: Duration,
    /// How large an image's archive may be, in bytes.
    pub image_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { command: Duration::from_secs(60), image: Duration::from_secs(1800), image_bytes: 64 << 30 }
    }
}

/// This host's clients, as the source of a recipe or as its destination. All calls block.
#[derive(Debug, Clone)]
pub struct Recreator {
    engine: Arc<fastmig_engine::Config>,
    limits: Limits,
}

impl Recreator {
    /// On a host with these settings.
    #[must_use]
    pub fn new(engine: Arc<fastmig_engine::Config>) -> Self {
        Self { engine, limits: Limits::default() }
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }
}
