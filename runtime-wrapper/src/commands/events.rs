//! `fastmig events`: what happens on this host, from now on, until interrupted. With a container it is runc's command.

use std::io::Write;
use std::process::ExitCode;

use fastmig_api::event::{Event, What};

use super::figures::{bytes, milliseconds, moment, plain};
use super::migrate::rounds;
use super::Context;

pub(crate) fn run(context: &Context) -> ExitCode {
    let events = match context.daemon().events(None) {
        Ok(events) => events,
        Err(e) => return context.daemon_failed(&e),
    };
    for event in events {
        let line = match event {
            Ok(event) if context.output.json => serde_json::to_string(&event).unwrap_or_default(),
            Ok(event) => line(&event),
            Err(e) => {
                context.output.failure_text(&format!("no more events: {e}"));
                return ExitCode::FAILURE;
            }
        };
        // Nobody reads any more: a pipe that was closed is the usual end.
        if writeln!(std::io::stdout(), "{line}").is_err() {
            return ExitCode::SUCCESS;
        }
    }
    context.output.failure_text("no more events: fastmigd has ended");
    ExitCode::FAILURE
}

fn line(event: &Event) -> String {
    let container = event.container.as_deref().unwrap_or("-");
    plain(&format!("{}  {container}  {}", moment(&event.at), describe(&event.what)))
}

/// What happened, in a line.
pub(crate) fn describe(what: &What) -> String {
    match what {
        What::OperationStarted { started } => format!("{} began ({})", started.kind, started.id),
        What::OperationEnded { ended } => {
            let took = milliseconds(ended.took_ms);
            match &ended.error {
                None => format!("{} is done after {took}", ended.kind),
                Some(error) => format!("{} failed after {took}: {error}", ended.kind),
            }
        }
        What::PhaseStarted { phase, frozen: true, .. } => format!("{phase} (frozen)"),
        What::PhaseStarted { phase, .. } => phase.clone(),
        What::PhaseEnded { phase, ms, .. } => format!("{phase}: {}", milliseconds(*ms)),
        What::Progress { phase, done, total, rate, .. } => {
            format!("{phase}: {} of {}, {}/s", bytes(*done), bytes(*total), bytes(*rate))
        }
        What::StrategyChosen { strategy, why } => rounds::chosen(*strategy, why),
        What::RoundEnded(round) => rounds::line(round),
        What::Throttled { percent } => rounds::throttled(*percent),
        What::MemoryFollows { owed, done, faults, ms } => rounds::follows(*owed, *done, *faults, *ms),
        What::Warning { message } => format!("warning: {message}"),
        What::PolicyDecided { decided } => format!("the policy says {}: {}", decided.action, decided.reason),
        What::ContainerChanged { application } => format!("is now: {application}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event = Event {
            sequence: 1,
            at: "2026-11-21T10:00:00.5Z".into(),
            operation: None,
            key: None,
            container: Some("web".into()),
            what: What::Progress {
                phase: "restore".into(),
                done: 1 << 20,
                total: 2 << 20,
                wire: 7,
                rate: 1024,
            },
        };
        assert_eq!(line(&event), "2026-11-21 10:00:00  web  restore: 1.0 MiB of 2.0 MiB, 1.0 KiB/s");
    }
}
