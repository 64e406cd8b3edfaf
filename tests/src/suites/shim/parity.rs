//! To be written.

use crate::framework::Case;

pub(super) const CASES: &[Case] = &[];
