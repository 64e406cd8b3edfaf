//! The command line: `fastmig-init --control-fd N [--profile NAME] -- COMMAND [ARGUMENT...]`.

use std::ffi::{CString, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStringExt;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invocation {
    /// Print the version.
    Version,
    /// Be the init.
    Init(Options),
}

/// What the init needs to know.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// The inherited listening socket.
    pub(crate) control_fd: RawFd,
    /// The AppArmor profile that the application goes under; without one it stays under the init's.
    pub(crate) profile: Option<String>,
    /// The image's command; never empty.
    pub(crate) command: Vec<CString>,
}

/// Why the command line makes no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsageError {
    #[error(
        "unknown option {0:?}; usage: fastmig-init --control-fd N [--profile NAME] -- COMMAND [ARGUMENT...]"
    )]
    Unknown(OsString),
    #[error("--control-fd needs the number of a descriptor above 2")]
    ControlFd,
    #[error("--profile needs the name of an AppArmor profile")]
    Profile,
    #[error("no command after --")]
    NoCommand,
}

/// Reads the arguments that follow the program's name.
pub(crate) fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Invocation, UsageError> {
    let (mut control_fd, mut profile) = (None, None);
    loop {
        let Some(arg) = args.next() else { return Err(UsageError::NoCommand) };
        match arg.as_encoded_bytes() {
            b"--version" => return Ok(Invocation::Version),
            b"--control-fd" => control_fd = Some(descriptor(args.next())?),
            b"--profile" => profile = Some(name(args.next())?),
            b"--" => break,
            _ => return Err(UsageError::Unknown(arg)),
        }
    }
    // Arguments came as C strings, so none holds a NUL and none is dropped.
    let command: Vec<_> = args.filter_map(|arg| CString::new(arg.into_vec()).ok()).collect();
    if command.is_empty() {
        return Err(UsageError::NoCommand);
    }
    let control_fd = control_fd.ok_or(UsageError::ControlFd)?;
    Ok(Invocation::Init(Options { control_fd, profile, command }))
}

fn name(value: Option<OsString>) -> Result<String, UsageError> {
    value
        .and_then(|value| value.into_string().ok())
        .filter(|name| !name.is_empty())
        .ok_or(UsageError::Profile)
}

fn descriptor(value: Option<OsString>) -> Result<RawFd, UsageError> {
    value
        .and_then(|value| value.to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .ok_or(UsageError::ControlFd)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_all(args: &[&str]) -> Result<Invocation, UsageError> {
        parse(args.iter().map(OsString::from))
    }

    #[test]
    fn everything_after_the_dashes_is_the_command() {
        let command = vec![c"--control-fd".into(), c"".into(), c"--".into()];
        let expected = Invocation::Init(Options { control_fd: 3, profile: None, command });
        assert_eq!(parse_all(&["--control-fd", "3", "--", "--control-fd", "", "--"]), Ok(expected));
        assert_eq!(parse_all(&["--version"]), Ok(Invocation::Version));
    }

    #[test]
    fn the_application_may_have_a_profile_of_its_own() {
        let expected =
            Options { control_fd: 3, profile: Some("container".into()), command: vec![c"true".into()] };
        let found = parse_all(&["--control-fd", "3", "--profile", "container", "--", "true"]);
        assert_eq!(found, Ok(Invocation::Init(expected)));
        assert_eq!(parse_all(&["--profile", "", "--", "true"]), Err(UsageError::Profile));
        assert_eq!(parse_all(&["--profile"]), Err(UsageError::Profile));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(parse_all(&[]), Err(UsageError::NoCommand));
        assert_eq!(parse_all(&["--control-fd", "3", "--"]), Err(UsageError::NoCommand));
        assert_eq!(parse_all(&["--", "true"]), Err(UsageError::ControlFd));
        for value in ["2", "-1", "x", "", "99999999999"] {
            assert_eq!(parse_all(&["--control-fd", value, "--", "true"]), Err(UsageError::ControlFd));
        }
        assert_eq!(parse_all(&["true"]), Err(UsageError::Unknown("true".into())));
    }
}
