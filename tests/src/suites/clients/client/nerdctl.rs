//! nerdctl: in no package, so it is tested where the machine has one.

use super::{number_after, Client};
use crate::framework::clients::nerdctl;
use crate::framework::{Cmd, Output};

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

    /// Older ones know fewer: `checkpoint` came with 2.2.
    fn lacks(&self, command: &str) -> Option<String> {
        let program = nerdctl()?;
        let known = Cmd::new([program.to_string_lossy(), "--help".into()]).output().map(|told| told.out());
        let knows = |told: &String| told.lines().any(|line| line.split_whitespace().next() == Some(command));
        let reason =
            || format!("{} does not know the command {command}: take a newer one", program.display());
        (!known.is_ok_and(|told| knows(&told))).then(reason)
    }

    /// It ends with 1 and tells the code in words.
    fn exec_code(&self, output: &Output) -> Option<i32> {
        number_after(&output.err(), "exec failed with exit code").or_else(|| output.status.code())
    }
}
