//! What `fastmig checkpoint` answers.

use fastmig_engine::checkpoint::Report;

use crate::output::Output;

pub(crate) fn print(output: Output, report: &Report) {
    output.value(report, |report| {
        let path = report.path.display();
        format!(
            "{} processes, {} bytes in {path}{}, frozen for {} ms{}",
            report.processes,
            report.bytes,
            written(report),
            report.frozen_ms,
            why_plain(report),
        )
    });
}

/// How much of it was written, where that was not all.
fn written(report: &Report) -> String {
    let memory = &report.memory;
    if memory.rounds == 0 {
        return String::new();
    }
    format!(", {} of them written in {} rounds", memory.written, memory.rounds)
}

fn why_plain(report: &Report) -> String {
    let because = |why| format!(" (its memory was written meanwhile: {why})");
    report.memory.plain_because.as_ref().map_or_else(String::new, because)
}
