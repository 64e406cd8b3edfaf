//! What `fastmig restore` answers.

use fastmig_engine::restore::Report;

use crate::output::Output;

pub(crate) fn print(output: Output, report: &Report) {
    output.value(report, |report| {
        let (pid, total) = (report.application_pid, report.total_ms);
        match &report.followed {
            None => format!("restored as pid {pid} in {total} ms"),
            Some(followed) => {
                let (memory, faults) = (followed.memory_ms, followed.faults);
                let running = total.saturating_sub(memory);
                format!(
                    "restored as pid {pid} in {running} ms; its memory followed for {memory} ms, of which it waited for {faults} pieces"
                )
            }
        }
    });
}
