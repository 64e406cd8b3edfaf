//! What `fastmig restore` answers.

use fastmig_engine::restore::Report;

use crate::output::Output;

pub(crate) fn print(output: Output, report: &Report) {
    output.value(report, |report| {
        format!("restored as pid {} in {} ms", report.application_pid, report.total_ms)
    });
}
