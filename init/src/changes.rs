//! What is to be different when the image's command is started: arguments after its own, variables.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use fastmig_control::{Change, Refusal, MAX_CHANGES};

/// A change, kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kept {
    Forget,
    Argument(CString),
    Set(CString),
    Unset(CString),
}

impl Kept {
    /// What was read holds no NUL.
    pub(crate) fn of(change: Change<'_>) -> Option<Self> {
        let word = |word: &[u8]| CString::new(word).ok();
        Some(match change {
            Change::Forget => Self::Forget,
            Change::Argument(argument) => Self::Argument(word(argument)?),
            Change::Set(variable) => Self::Set(word(variable)?),
            Change::Unset(name) => Self::Unset(word(name)?),
        })
    }
}

/// All changes, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Changes(Vec<Kept>);

impl Changes {
    pub(crate) fn add(&mut self, change: Kept) -> Result<(), Refusal> {
        if change == Kept::Forget {
            self.0.clear();
            return Ok(());
        }
        if self.0.len() == MAX_CHANGES {
            return Err(Refusal::TooManyChanges);
        }
        self.0.push(change);
        Ok(())
    }

    /// The command with its further arguments.
    pub(crate) fn command(&self, command: &[CString]) -> Vec<CString> {
        let further = self.0.iter().filter_map(|change| match change {
            Kept::Argument(argument) => Some(argument.clone()),
            _ => None,
        });
        command.iter().cloned().chain(further).collect()
    }

    /// The environment as it is to be; none when it stays as it is.
    pub(crate) fn environment(
        &self,
        own: impl Iterator<Item = (OsString, OsString)>,
    ) -> Option<Vec<CString>> {
        if !self.0.iter().any(|change| matches!(change, Kept::Set(_) | Kept::Unset(_))) {
            return None;
        }
        let mut all: Vec<Vec<u8>> =
            own.map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()).collect();
        for change in &self.0 {
            let (Kept::Set(word) | Kept::Unset(word)) = change else { continue };
            let name = name_of(word.as_bytes());
            all.retain(|variable| name_of(variable) != name);
            if let Kept::Set(variable) = change {
                all.push(variable.as_bytes().to_vec());
            }
        }
        Some(all.into_iter().filter_map(|variable| CString::new(variable).ok()).collect())
    }

    /// Where the command is looked for.
    pub(crate) fn path(environment: Option<&[CString]>) -> OsString {
        let Some(environment) = environment else { return std::env::var_os("PATH").unwrap_or_default() };
        let path = environment.iter().find_map(|variable| variable.as_bytes().strip_prefix(b"PATH="));
        OsString::from_vec(path.unwrap_or_default().to_vec())
    }
}

fn name_of(variable: &[u8]) -> &OsStr {
    OsStr::from_bytes(variable.split(|byte| *byte == b'=').next().unwrap_or(variable))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(all: &[Change<'_>]) -> Changes {
        let mut changes = Changes::default();
        for change in all {
            changes.add(Kept::of(*change).unwrap()).unwrap();
        }
        changes
    }

    fn own() -> impl Iterator<Item = (OsString, OsString)> {
        [("PATH", "/bin"), ("A", "1"), ("B", "2")]
            .map(|(name, value)| (name.into(), value.into()))
            .into_iter()
    }

    #[test]
    fn the_last_word_about_a_variable_counts() {
        let changed = changes(&[
            Change::Set(b"A=3"),
            Change::Unset(b"B"),
            Change::Set(b"PATH=/usr/bin"),
            Change::Set(b"A=4=5"),
            Change::Argument(b"--more"),
        ]);
        let environment = changed.environment(own()).unwrap();
        assert_eq!(environment, [c"PATH=/usr/bin".to_owned(), c"A=4=5".to_owned()]);
        assert_eq!(Changes::path(Some(&environment)), "/usr/bin");
        assert_eq!(changed.command(&[c"x".to_owned()]), [c"x".to_owned(), c"--more".to_owned()]);
    }

    #[test]
    fn without_changes_nothing_is_touched() {
        let forgotten = changes(&[Change::Set(b"A=3"), Change::Argument(b"x"), Change::Forget]);
        assert_eq!(forgotten.environment(own()), None);
        assert_eq!(forgotten.command(&[c"x".to_owned()]), [c"x".to_owned()]);
    }

    #[test]
    fn changes_are_bounded() {
        let mut changes = Changes::default();
        for _ in 0..MAX_CHANGES {
            changes.add(Kept::of(Change::Argument(b"x")).unwrap()).unwrap();
        }
        assert_eq!(changes.add(Kept::of(Change::Argument(b"x")).unwrap()), Err(Refusal::TooManyChanges));
        assert_eq!(changes.add(Kept::Forget), Ok(()));
    }
}
