//! `fastmig completion SHELL`, and the manual pages.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, Args, Command};
use clap_complete::Shell;

use crate::output::Output;

/// The shells that are known.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The shell that is to know FastMig's commands
    shell: Shell,
}

impl Arguments {
    pub(crate) fn run(&self, mut command: Command) -> ExitCode {
        clap_complete::generate(self.shell, &mut command, "fastmig", &mut io::stdout());
        ExitCode::SUCCESS
    }
}

/// What a package or an installation brings for people: manual pages and completions, as they lie below `share/`.
#[derive(Debug, Args)]
pub(crate) struct Share {
    /// The directory that gets man/ and the shells' directories
    directory: PathBuf,
}

/// Where each shell looks.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions/fastmig"),
    (Shell::Zsh, "zsh/site-functions/_fastmig"),
    (Shell::Fish, "fish/vendor_completions.d/fastmig.fish"),
];

impl Share {
    pub(crate) fn run(&self, command: Command, output: Output) -> ExitCode {
        match self.write(command) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                output.failure_text(&format!("cannot write below {}: {e}", self.directory.display()));
                ExitCode::FAILURE
            }
        }
    }

    fn write(&self, mut command: Command) -> io::Result<()> {
        for (shell, path) in COMPLETIONS {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut command, "fastmig", &mut text);
            put(&self.directory.join(path), &text)?;
        }
        let pages = self.directory.join("man/man8");
        std::fs::create_dir_all(&pages)?;
        page(&command, "fastmig", &pages)?;
        for sub in command.get_subcommands().filter(|sub| is_ours(sub)) {
            page(sub, &format!("fastmig-{}", sub.get_name()), &pages)?;
        }
        Ok(())
    }
}

/// Whether there is more to tell of a command than that it is runc's.
fn is_ours(command: &Command) -> bool {
    let own =
        |argument: &Arg| !argument.is_hide_set() && !argument.is_global_set() && argument.get_id() != "help";
    !command.is_hide_set() && command.get_arguments().any(own)
}

fn page(command: &Command, name: &str, into: &Path) -> io::Result<()> {
    let mut text = Vec::new();
    let command = command.clone().display_name(name).bin_name(name.replacen('-', " ", 1));
    clap_mangen::Man::new(command).section("8").manual("FastMig").render(&mut text)?;
    put(&into.join(format!("{name}.8")), &text)
}

fn put(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(path, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_written_for_each_command_that_is_ours() {
        let directory = tempfile::tempdir().unwrap();
        let command = Command::new("fastmig")
            .subcommand(Command::new("migrate").about("Move").arg(Arg::new("container")))
            .subcommand(Command::new("state").arg(Arg::new("rest").hide(true)));
        Share { directory: directory.path().into() }.write(command).unwrap();
        let page = |name: &str| std::fs::read_to_string(directory.path().join("man/man8").join(name));
        assert!(page("fastmig-migrate.8").unwrap().contains("fastmig migrate"));
        assert!(page("fastmig.8").unwrap().starts_with(".ie"), "{}", page("fastmig.8").unwrap());
        assert!(page("fastmig-state.8").is_err());
        for (_, path) in COMPLETIONS {
            assert!(std::fs::read_to_string(directory.path().join(path)).unwrap().contains("migrate"));
        }
    }
}
