//! The OCI command line beside runc's: the same script, on the same bundle, with either runtime.

mod cases;
mod pair;
mod warm;

use crate::framework::Case;

/// What runc does, and what FastMig adds.
pub(super) fn cases() -> Vec<Case> {
    [cases::CASES, warm::CASES].concat()
}
