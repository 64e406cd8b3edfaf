//! Facts and answer as JSON, for a program that decides instead of the rules.
//!
//! It is given one object on its standard input and prints one: `{"action": "restore", "checkpoint": "latest",
//! "delay_ms": 0, "reason": "..."}`; all but the action may be left out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::decision::{Action, Decision};
use crate::facts::{Facts, Phase};

/// An answer is not longer than this.
pub const MAX_ANSWER: usize = 64 << 10;

/// A restart waits no longer than a day.
const LONGEST_DELAY: Duration = Duration::from_secs(86_400);

/// What the program is asked.
#[derive(Debug, Serialize)]
pub struct Question<'a> {
    /// Of this object: 1.
    pub version: u8,
    /// The container.
    pub container: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// [`Facts::code`].
    pub code: Option<u8>,
    /// [`Facts::signal`].
    pub signal: Option<u8>,
    /// [`Facts::oom`].
    pub oom: bool,
    /// [`Facts::ran`] in milliseconds.
    pub ran_ms: u64,
    /// [`Facts::failures`].
    pub failures: u32,
    /// [`Facts::phase`].
    pub phase: Phase,
    /// The last lines of its log.
    pub output: Vec<String>,
}

impl<'a> Question<'a> {
    /// The question about this end.
    #[must_use]
    pub fn new(namespace: &'a str, container: &'a str, facts: &Facts) -> Self {
        Self {
            version: 1,
            container,
            namespace,
            code: facts.code,
            signal: facts.signal,
            oom: facts.oom,
            ran_ms: u64::try_from(facts.ran.as_millis()).unwrap_or(u64::MAX),
            failures: facts.failures,
            phase: facts.phase,
            output: facts.output.lines().map(Into::into).collect(),
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(flatten)]
    action: Action,
    #[serde(default)]
    delay_ms: u64,
    #[serde(default)]
    reason: String,
}

/// Reads the program's answer.
///
/// # Errors
/// Says what is wrong with it.
pub fn read(answer: &[u8], facts: &Facts) -> Result<Decision, String> {
    if answer.len() > MAX_ANSWER {
        return Err(format!("its answer is longer than {MAX_ANSWER} bytes"));
    }
    let answer: Answer = serde_json::from_slice(answer).map_err(|e| format!("its answer is none: {e}"))?;
    let delay = Duration::from_millis(answer.delay_ms);
    if delay > LONGEST_DELAY {
        return Err("its answer has a delay of more than a day".into());
    }
    let words: String = answer.reason.chars().filter(|c| !c.is_control()).take(200).collect();
    let reason = format!("{facts}: {}", if words.is_empty() { "its decider wants it so" } else { &words });
    Ok(Decision { action: answer.action, delay, reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Wanted;

    #[test]
    fn an_answer_needs_nothing_but_an_action() {
        let facts = Facts::exited(3);
        let read = |text: &str| read(text.as_bytes(), &facts);
        assert_eq!(read(r#"{"action":"scratch"}"#).unwrap().action, Action::Scratch);
        let restore = read(r#"{"action":"restore","delay_ms":5,"reason":"disk\u0007 full"}"#).unwrap();
        assert_eq!(restore.action, Action::Restore { checkpoint: Wanted::Latest });
        assert_eq!(restore.delay, Duration::from_millis(5));
        assert_eq!(restore.reason, "exit code 3 after 0.0s: disk full");
        for bad in ["", "{}", "scratch", r#"{"action":"reboot"}"#, r#"{"action":"exit","delay_ms":86400001}"#]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_question_has_all_facts() {
        let facts = Facts { output: crate::Output::of(b"a\nb\n", 9), ..Facts::exited(137).failed(2) };
        let json = serde_json::to_value(Question::new("default", "web", &facts)).unwrap();
        assert_eq!(json["code"], 137);
        assert_eq!(json["signal"], 9);
        assert_eq!(json["phase"], "normal");
        assert_eq!(json["output"], serde_json::json!(["a", "b"]));
    }
}
