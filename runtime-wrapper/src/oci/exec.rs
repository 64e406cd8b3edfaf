//! `exec`: runc's own, after the session's pid has been kept out of the way of a restore, under the profile of the container's
//! applications.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use clap::Parser;
use fastmig_engine::Container;
use rustix::fs::{memfd_create, MemfdFlags};

use super::Runtime;

/// Read to find the container, and its process; runc gets the rest as it is.
#[derive(Debug, Parser)]
struct Arguments {
    #[arg(long)]
    console_socket: Option<OsString>,
    #[arg(long)]
    pidfd_socket: Option<OsString>,
    #[arg(long)]
    cwd: Option<OsString>,
    #[arg(long, short)]
    env: Vec<OsString>,
    #[arg(long, short)]
    tty: bool,
    #[arg(long, short)]
    user: Option<OsString>,
    #[arg(long, short = 'g')]
    additional_gids: Vec<OsString>,
    #[arg(long, short)]
    process: Option<OsString>,
    #[arg(long, short)]
    detach: bool,
    #[arg(long)]
    pid_file: Option<OsString>,
    #[arg(long)]
    process_label: Option<OsString>,
    #[arg(long)]
    apparmor: Option<OsString>,
    #[arg(long)]
    no_new_privs: bool,
    #[arg(long, short)]
    cap: Vec<OsString>,
    #[arg(long)]
    preserve_fds: Option<OsString>,
    #[arg(long)]
    cgroup: Vec<OsString>,
    #[arg(long)]
    ignore_paused: bool,
    /// The container's id
    id: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

pub(crate) fn run(runtime: &Runtime, raw: &[OsString]) -> ExitCode {
    let arguments: Arguments = match runtime.parse("exec", raw) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let Ok(Some(container)) = runtime.known(&arguments.id) else { return runtime.hand_over("exec", raw) };
    // A container that has ended, or not started, is runc's to refuse.
    if let Err(e) = container.make_room_for_session() {
        tracing::debug!(container = arguments.id, error = %e.report(), "the session's pid is left to chance");
    }
    match confined(&container, &arguments, raw) {
        Ok((words, _process)) => runtime.hand_over("exec", &words),
        Err(e) => runtime.refuse(&format!("cannot hand on the process that is to be executed: {e}")),
    }
}

/// The arguments for runc, which would put the session under the init's AppArmor profile otherwise; and the process that they
/// name, where that is not the caller's.
fn confined(
    container: &Container,
    arguments: &Arguments,
    raw: &[OsString],
) -> io::Result<(Vec<OsString>, Option<File>)> {
    let mut words = raw.to_vec();
    let Some(profile) = container.session_profile() else { return Ok((words, None)) };
    let Some(path) = &arguments.process else {
        if arguments.apparmor.is_none() {
            words.splice(0..0, ["--apparmor".into(), profile.into()]);
        }
        return Ok((words, None));
    };
    // A file without a name: nobody is left to remove one.
    let mut process = File::from(memfd_create(c"process.json", MemfdFlags::empty())?);
    process.write_all(&container.confined(&fs::read(path)?))?;
    let name = format!("/proc/self/fd/{}", process.as_raw_fd());
    let options = words.len().saturating_sub(1 + arguments.command.len());
    replace(&mut words[..options], path, &name);
    Ok((words, Some(process)))
}

/// Names another process among the options, in either of the ways in which Go's programs take values.
fn replace(options: &mut [OsString], path: &OsStr, name: &str) {
    const FLAGS: [&str; 4] = ["--process", "-process", "--p", "-p"];
    for place in 0..options.len() {
        let named = FLAGS
            .iter()
            .find(|flag| options[place].as_bytes() == [flag.as_bytes(), b"=", path.as_bytes()].concat());
        if let Some(flag) = named {
            options[place] = format!("{flag}={name}").into();
        } else if place > 0 && options[place] == path && FLAGS.iter().any(|flag| options[place - 1] == *flag)
        {
            options[place] = name.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_is_found_behind_the_options() {
        let words = ["exec", "-t", "-e", "A=1", "--user", "1:1", "--cwd=/", "web", "ls", "-l", "--help"];
        let arguments = Arguments::try_parse_from(words).unwrap();
        assert_eq!((arguments.id.as_str(), arguments.command.len()), ("web", 3));
    }

    #[test]
    fn the_process_is_another_file_and_all_else_stays() {
        for (before, after) in [
            (&["-d", "--process", "/p", "web"][..], &["-d", "--process", "/new", "web"][..]),
            (&["-p=/p", "--cwd", "/p", "web"], &["-p=/new", "--cwd", "/p", "web"]),
            (&["--process=/p", "-e", "-p=/p/x"], &["--process=/new", "-e", "-p=/p/x"]),
        ] {
            let mut words: Vec<OsString> = before.iter().map(OsString::from).collect();
            replace(&mut words, OsStr::new("/p"), "/new");
            assert_eq!(words, after);
        }
    }
}
