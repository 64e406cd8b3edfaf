//! Rules, as a TOML file has them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;
use toml::Spanned;

use crate::backoff::Backoff;
use crate::condition::{self, Codes, Condition, Signals};
use crate::decision::{Action, Decision, Wanted};
use crate::facts::{Facts, Phase};
use crate::named;
use crate::output::MAX_LINES;

/// The version of the file that this one reads.
pub const VERSION: i64 = 1;

/// A file is not longer than this.
const MAX_BYTES: u64 = 1 << 20;

/// There are not more rules than this.
const MAX_RULES: usize = 1000;

/// A compiled pattern is not larger than this.
const MAX_PATTERN: usize = 1 << 20;

/// How long an external decider may take at most.
const LONGEST_LIMIT: Duration = Duration::from_secs(60);

/// Why a policy cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy {name}{}: {cause}", at(*line))]
pub struct RulesError {
    /// The policy: its name, or its file.
    pub name: String,
    /// The line, counted from 1.
    pub line: Option<usize>,
    /// What is wrong there.
    pub cause: String,
}

fn at(line: Option<usize>) -> String {
    line.map(|line| format!(", line {line}")).unwrap_or_default()
}

/// A program that decides instead of the rules.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decider {
    /// Its absolute path.
    pub program: PathBuf,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// How long it may take; then the rules decide.
    #[serde(default = "Decider::limit", deserialize_with = "crate::duration::deserialize")]
    pub limit: Duration,
}

impl Decider {
    fn limit() -> Duration {
        Duration::from_secs(2)
    }
}

/// One rule.
#[derive(Debug, Clone)]
struct Rule {
    /// What it is called in reasons.
    name: String,
    condition: Condition,
    action: Action,
    /// Instead of the back-off.
    delay: Option<Duration>,
}

/// A policy, ready to decide.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Its name, or its file.
    pub name: String,
    /// Failures count for this long.
    pub window: Duration,
    /// How long a restart waits.
    pub backoff: Backoff,
    /// How many of the last lines of the log are looked at.
    pub output_lines: usize,
    /// Who decides before the rules.
    pub decider: Option<Decider>,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "version")]
    _version: i64,
    #[serde(default = "ten_minutes", deserialize_with = "crate::duration::deserialize")]
    window: Duration,
    #[serde(default)]
    backoff: Backoff,
    #[serde(default = "two_hundred")]
    output_lines: Spanned<usize>,
    decider: Option<Spanned<Decider>>,
    #[serde(default, rename = "rule")]
    rules: Vec<Spanned<RuleText>>,
}

fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}

fn two_hundred() -> Spanned<usize> {
    Spanned::new(0..0, 200)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    name: Option<String>,
    code: Option<Codes>,
    signal: Option<Signals>,
    oom: Option<bool>,
    #[serde(default, deserialize_with = "crate::duration::optional")]
    ran_below: Option<Duration>,
    #[serde(default, deserialize_with = "crate::duration::optional")]
    ran_above: Option<Duration>,
    failures: Option<u32>,
    #[serde(default, deserialize_with = "condition::phases")]
    phase: Option<Vec<Phase>>,
    output: Option<Spanned<String>>,
    action: Spanned<ActionName>,
    checkpoint: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "crate::duration::optional")]
    delay: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ActionName {
    Scratch,
    Restore,
    Standby,
    Exit,
}

impl Rules {
    /// The policy of this name that comes with FastMig.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::parse(named::text(name)?, name).ok()
    }

    /// The text of the policy of this name that comes with FastMig.
    #[must_use]
    pub fn text(name: &str) -> Option<&'static str> {
        named::text(name)
    }

    /// The policy in a file.
    ///
    /// # Errors
    /// When it cannot be read or is wrong; the text names the line.
    pub fn from_file(path: &Path) -> Result<Self, RulesError> {
        let name = path.display().to_string();
        let failed = |cause: String| RulesError { name: name.clone(), line: None, cause };
        let length = std::fs::metadata(path).map_err(|e| failed(format!("it cannot be read: {e}")))?.len();
        if length > MAX_BYTES {
            return Err(failed(format!("it is {length} bytes long; {MAX_BYTES} are allowed")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| failed(format!("it cannot be read: {e}")))?;
        Self::parse(&text, &name)
    }

    /// The policy in `text`, called `name` where something is wrong with it.
    ///
    /// # Errors
    /// When it is wrong; the text names the line.
    pub fn parse(text: &str, name: &str) -> Result<Self, RulesError> {
        let source = Source { text, name };
        source.check_version()?;
        let file: File = toml::from_str(text).map_err(|e| source.refused(&e))?;
        if file.rules.len() > MAX_RULES {
            return Err(
                source.error(None, format!("it has {} rules; {MAX_RULES} are allowed", file.rules.len()))
            );
        }
        let lines = *file.output_lines.get_ref();
        if lines > MAX_LINES {
            let span = Some(file.output_lines.span().start);
            return Err(source.error(span, format!("output_lines is {lines}; {MAX_LINES} are allowed")));
        }
        let decider = file.decider.map(|decider| source.decider(decider)).transpose()?;
        let rules: Result<Vec<_>, _> =
            file.rules.into_iter().enumerate().map(|(index, rule)| source.rule(index, rule)).collect();
        Ok(Self {
            name: name.into(),
            window: file.window,
            backoff: file.backoff,
            output_lines: lines,
            decider,
            rules: rules?,
        })
    }

    /// Whether any rule, or the decider, looks at the output.
    #[must_use]
    pub fn reads_output(&self) -> bool {
        self.decider.is_some() || self.rules.iter().any(|rule| rule.condition.output.is_some())
    }

    /// The action of the first rule that fits; where none does, the container ends as on runc.
    #[must_use]
    pub fn decide(&self, facts: &Facts) -> Decision {
        let fits = |rule: &Rule| rule.condition.holds(facts).map(|line| (rule.clone(), line));
        let Some((rule, line)) = self.rules.iter().find_map(fits) else {
            let reason = format!("{facts}: no rule of policy {} fits", self.name);
            return Decision { action: Action::Exit, delay: Duration::ZERO, reason };
        };
        let said = line.map(|line| format!(", it said {:?}", shortened(line))).unwrap_or_default();
        let reason = format!("{facts}{said}: {} (policy {})", rule.name, self.name);
        let backoff =
            if rule.action.restarts() { self.backoff.after(facts.failures) } else { Duration::ZERO };
        Decision { action: rule.action, delay: rule.delay.unwrap_or(backoff), reason }
    }
}

/// A line, for a reason.
fn shortened(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let short: String = text.chars().take(120).collect();
    if short.len() < text.len() {
        format!("{short}...")
    } else {
        short
    }
}

/// The text that is being read, for errors.
struct Source<'a> {
    text: &'a str,
    name: &'a str,
}

impl Source<'_> {
    fn error(&self, offset: Option<usize>, cause: String) -> RulesError {
        RulesError { name: self.name.into(), line: offset.map(|offset| self.line(offset)), cause }
    }

    fn line(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// What the parser says, in one line.
    fn refused(&self, error: &toml::de::Error) -> RulesError {
        let cause = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        self.error(error.span().map(|span| span.start), cause)
    }

    /// Before all else: another version may have fields that are unknown here.
    fn check_version(&self) -> Result<(), RulesError> {
        #[derive(Deserialize)]
        struct Version {
            version: Option<Spanned<i64>>,
        }
        let found: Version = toml::from_str(self.text).map_err(|e| self.refused(&e))?;
        match found.version {
            None => Err(self.error(None, format!("it has no version: begin it with `version = {VERSION}`"))),
            Some(version) if *version.get_ref() != VERSION => {
                let cause =
                    format!("version {} is unknown here; this FastMig reads {VERSION}", version.get_ref());
                Err(self.error(Some(version.span().start), cause))
            }
            Some(_) => Ok(()),
        }
    }

    fn decider(&self, decider: Spanned<Decider>) -> Result<Decider, RulesError> {
        let offset = Some(decider.span().start);
        let decider = decider.into_inner();
        if !decider.program.is_absolute() {
            return Err(self.error(offset, format!("{:?} is no absolute path of a program", decider.program)));
        }
        if decider.limit.is_zero() || decider.limit > LONGEST_LIMIT {
            return Err(self.error(offset, format!("limit is {:?}; give 1ms to 60s", decider.limit)));
        }
        Ok(decider)
    }

    fn rule(&self, index: usize, rule: Spanned<RuleText>) -> Result<Rule, RulesError> {
        let text = rule.into_inner();
        let action = match (text.action.get_ref(), text.checkpoint) {
            (ActionName::Restore, checkpoint) => {
                let checkpoint = checkpoint.map(|name| self.checkpoint(name)).transpose()?;
                Action::Restore { checkpoint: checkpoint.unwrap_or_default() }
            }
            (_, Some(checkpoint)) => {
                let cause = "checkpoint belongs to action = \"restore\"".into();
                return Err(self.error(Some(checkpoint.span().start), cause));
            }
            (ActionName::Scratch, None) => Action::Scratch,
            (ActionName::Standby, None) => Action::Standby,
            (ActionName::Exit, None) => Action::Exit,
        };
        let condition = Condition {
            code: text.code,
            signal: text.signal,
            oom: text.oom,
            ran_below: text.ran_below,
            ran_above: text.ran_above,
            failures: text.failures,
            phase: text.phase,
            output: text.output.map(|pattern| self.pattern(&pattern)).transpose()?,
        };
        let name = text.name.unwrap_or_else(|| format!("rule {}", index + 1));
        Ok(Rule { name, condition, action, delay: text.delay })
    }

    /// Names are those of the daemon's checkpoints: no path.
    fn checkpoint(&self, name: Spanned<String>) -> Result<Wanted, RulesError> {
        let offset = name.span().start;
        let name = name.into_inner();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !begins_well || name.len() > 128 || !name.chars().all(allowed) {
            let cause = format!("{name:?} is no name of a checkpoint: letters, digits and . _ - only");
            return Err(self.error(Some(offset), cause));
        }
        Ok(Wanted::from(name))
    }

    /// In linear time whatever is matched against it; `^` and `$` are those of a line.
    fn pattern(&self, pattern: &Spanned<String>) -> Result<Regex, RulesError> {
        RegexBuilder::new(pattern.get_ref()).multi_line(true).size_limit(MAX_PATTERN).build().map_err(|e| {
            let words = e.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            self.error(Some(pattern.span().start), format!("output is no regular expression: {words}"))
        })
    }
}

#[cfg(test)]
mod tests;
