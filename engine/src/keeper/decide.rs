//! Facts, and what the policy makes of them.

use std::time::Duration;

use fastmig_control::{Account, ExitStatus};
use fastmig_policy::{Action, Decision, Facts, Output};

use super::{End, Keeper};
use crate::{output, policy};

impl Keeper {
    /// All that is known of an end but what was said and how often it failed, which the policy bounds.
    pub(super) fn facts(&self, end: End, account: Account) -> Facts {
        let signal = match end.status {
            ExitStatus::Code(_) => None,
            ExitStatus::Signal(signal) => u8::try_from(signal.get()).ok(),
        };
        Facts {
            code: Some(end.status.shell_code()),
            signal,
            oom: end.oom,
            ran: Duration::from_millis(account.ran_ms.into()),
            phase: end.phase,
            ..Facts::default()
        }
    }

    /// What becomes of the application. A policy that cannot be read leaves it in standby: nothing is lost there.
    pub(super) fn decide(&mut self, facts: &Facts) -> Decision {
        let decision = self.ask_policy(facts);
        decision.unwrap_or_else(|reason| Decision {
            action: Action::Standby,
            delay: Duration::ZERO,
            reason: format!("{facts}: {reason}"),
        })
    }

    fn ask_policy(&mut self, facts: &Facts) -> Result<Decision, String> {
        let container = &self.container;
        let name = container.policy_name().map_err(|e| e.report())?;
        let rules = policy::load(&container.config, &name).map_err(|e| e.report())?;
        let failures = self.journal.count(facts, rules.window);
        let output =
            if rules.reads_output() { self.last_output(rules.output_lines) } else { Output::default() };
        let facts = Facts { failures, output, ..facts.clone() };
        let key = container.key();
        Ok(policy::decide(&rules, key.namespace(), key.id(), &facts))
    }

    fn last_output(&self, lines: usize) -> Output {
        let record = self.container.directory.load(self.container.key());
        record.map(|record| output::last(&record, lines)).unwrap_or_default()
    }
}
