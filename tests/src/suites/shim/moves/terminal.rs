//! A program on a terminal goes on at the terminal of the container that it is moved into.

use std::io::Write;
use std::process::ChildStdin;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::hosts;
use crate::apps::container::{Container, Setup};
use crate::apps::moving::move_application;
use crate::apps::{in_container, program_mount};
use crate::framework::process::wait_until;
use crate::framework::{Background, Ctx, Generation, Host};
use crate::suites::shim::stage::{nothing_is_left, SOON};

/// A terminal as a person has it, with `ctr run -t` on it.
struct Terminal {
    container: Container,
    screen: Background,
    keyboard: ChildStdin,
}

pub(super) fn moves(ctx: &Ctx, generations: [Generation; 2]) -> Result<()> {
    let [from, to] = hosts(ctx, generations, "python")?;
    let command = ["python3", &in_container("talk.py")].map(String::from);
    let setup = Setup::of("python").with(program_mount()).running(command);
    let mut here = Terminal::open(&from, "talk-1", &setup)?;
    here.sees("talk")?;
    here.types("one")?;
    here.sees("one\nanswer 1 one 33x101 echo=True foreground=True /dev/pts/0")?;
    let mut there = Terminal::open(&to, "talk-2", &setup.in_standby())?;
    there.container.wait_for("standby")?;

    move_application(&here.container, &there.container)?;
    there.types("two")?;
    // What is typed is echoed, by the terminal that the program is on now.
    there.sees("two\nanswer 2 two 33x101 echo=True foreground=True /dev/pts/0")?;
    there.keyboard.write_all(b"\x03")?;
    there.sees("interrupted 1")?;
    there.types("three")?;
    there.sees("answer 3 three 33x101")?;
    there.close()?;
    here.close()?;
    nothing_is_left(&from)?;
    nothing_is_left(&to)
}

impl Terminal {
    fn open(host: &Arc<Host>, id: &str, setup: &Setup) -> Result<Self> {
        let container = Container::adopt(host, id);
        let arguments = setup.clone().with(["--tty"]).arguments(id);
        let run = format!("stty rows 33 cols 101; exec ctr run {}", arguments.join(" "));
        let mut screen = host.cmd(["script", "-qec", &run, "/dev/null"]).spawn_with_stdin()?;
        let keyboard = screen.take_stdin().context("no keyboard")?;
        Ok(Self { container, screen, keyboard })
    }

    fn types(&mut self, line: &str) -> Result<()> {
        Ok(self.keyboard.write_all(format!("{line}\n").as_bytes())?)
    }

    fn sees(&self, text: &str) -> Result<()> {
        let shown = || String::from_utf8_lossy(&self.screen.stdout()).replace('\r', "");
        let seen = wait_until(SOON, || shown().contains(text));
        seen.with_context(|| format!("no {text:?} on the terminal, but {:?}", shown()))
    }

    fn close(self) -> Result<()> {
        self.container.host.cmd(["ctr", "tasks", "kill", "-s", "SIGKILL", self.container.id()]).ok()?;
        // It shows the exit code of a killed program.
        self.screen.wait(SOON)?;
        self.container.remove()
    }
}
