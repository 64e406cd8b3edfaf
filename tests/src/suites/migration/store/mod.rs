//! Checkpoints at rest: in a directory, in Debian's docker-registry and in an S3 server, plain and encrypted, from one host to
//! the other; and what must not become of them.

mod damage;
mod interrupted;
mod journey;
mod periodic;
mod places;

use crate::framework::Case;

pub(super) const CASES: &[&[Case]] = &[journey::CASES, damage::CASES, interrupted::CASES, periodic::CASES];
