//! A container is made once more on another host: in each client's ways to FastMig, and refused where it must be.

mod live;
mod refused;
mod stage;
mod twins;
mod way;

use crate::framework::Case;

pub(super) const CASES: &[&[Case]] = &[twins::CASES, refused::CASES, live::CASES];
