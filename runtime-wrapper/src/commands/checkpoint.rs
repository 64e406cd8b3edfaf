//! What `fastmig checkpoint` answers.

use fastmig_engine::checkpoint::Report;

use crate::output::Output;

pub(crate) fn print(output: Output, report: &Report) {
    output.value(report, |report| {
        let path = report.path.display();
        format!(
            "{} processes, {} bytes in {path}, frozen for {} ms",
            report.processes, report.bytes, report.frozen_ms
        )
    });
}
