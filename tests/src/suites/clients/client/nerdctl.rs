//! nerdctl: in no package, so it is tested where the machine has one.

use super::{number_after, Client};
use crate::framework::clients::nerdctl;
use crate::framework::Output;

pub(in crate::suites) static NERDCTL: Nerdctl = Nerdctl;

#[derive(Debug)]
pub(in crate::suites) struct Nerdctl;

impl Client for Nerdctl {
    fn program(&self) -> &'static str {
        "nerdctl"
    }

    fn missing(&self) -> Option<String> {
        let reason = "this machine has no nerdctl: put one into PATH, or name it in FASTMIG_NERDCTL";
        nerdctl().is_none().then(|| reason.to_owned())
    }

    /// It ends with 1 and tells the code in words.
    fn exec_code(&self, output: &Output) -> Option<i32> {
        number_after(&output.err(), "exec failed with exit code").or_else(|| output.status.code())
    }
}
