//! The operator's hooks: when they run and what they are told, and the two that come with FastMig at their real work.

mod around;

use crate::framework::Case;

pub(super) const CASES: &[&[Case]] = &[around::CASES];
