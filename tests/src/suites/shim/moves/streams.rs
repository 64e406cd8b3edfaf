//! Output goes on in the next container's streams, byte for byte.

use std::sync::Arc;

use anyhow::{bail, ensure, Context, Result};
use sha2::{Digest, Sha256};

use super::hosts;
use crate::apps::container::{Container, Setup};
use crate::apps::moving::move_application;
use crate::apps::{in_container, program_mount};
use crate::framework::process::wait_until;
use crate::framework::{Background, Ctx, Generation, Host, Output};
use crate::suites::shim::stage::{nothing_is_left, SOON};

const MOVES: usize = 5;

/// What each container must at least write before the next move.
const SHARE: usize = 100_000;

/// A container whose client reads its streams apart, as `ctr run` does that stays.
struct Writer {
    container: Container,
    client: Background,
}

pub(super) fn five_moves(ctx: &Ctx) -> Result<()> {
    let [t, f] = hosts(ctx, [Generation::Trixie, Generation::Forky], "python")?;
    let command = ["python3", &in_container("numbers.py")].map(String::from);
    let setup = Setup::of("python").with(program_mount()).running(command);
    let mut writers = vec![Writer::run(&t, 0, &setup)?];
    for number in 1..=MOVES {
        let next = Writer::run(if number % 2 == 0 { &t } else { &f }, number, &setup.clone().in_standby())?;
        next.container.wait_for("standby")?;
        let current = &writers[number - 1];
        current.writes()?;
        move_application(&current.container, &next.container)?;
        writers.push(next);
    }
    let last = &writers[MOVES];
    last.writes()?;
    last.container.exec("enough", &["touch", "/var/tmp/enough"])?;
    let outputs = writers.into_iter().enumerate().map(|(number, writer)| writer.end(number == MOVES));
    let outputs = outputs.collect::<Result<Vec<_>>>()?;
    check(&outputs.iter().map(|output| output.stdout.as_slice()).collect::<Vec<_>>().concat())?;
    check_errors(&outputs.iter().map(Output::err).collect::<String>())?;
    nothing_is_left(&t)?;
    nothing_is_left(&f)
}

impl Writer {
    fn run(host: &Arc<Host>, number: usize, setup: &Setup) -> Result<Self> {
        let container = Container::adopt(host, &format!("numbers-{number}"));
        let run = ["ctr", "run"].map(String::from).into_iter().chain(setup.arguments(container.id()));
        let client = host.cmd(run).spawn()?;
        Ok(Self { container, client })
    }

    fn writes(&self) -> Result<()> {
        wait_until(SOON, || self.client.stdout().len() > SHARE).context("it does not write")
    }

    /// All that it has written; the container of the last one ends by itself.
    fn end(self, last: bool) -> Result<Output> {
        if !last {
            self.container.require("standby")?;
            self.container.host.cmd(["ctr", "tasks", "kill", "-s", "SIGKILL", self.container.id()]).ok()?;
        }
        let output = self.client.wait(SOON).context("its client does not end")?;
        ensure!(output.status.success() == last, "it ended with {}", output.status);
        self.container.remove()?;
        Ok(output)
    }
}

/// Every tenth number, and what else the client says of the end of a container.
fn check_errors(errors: &str) -> Result<()> {
    let mut numbers = errors.lines().filter_map(|line| line.parse::<u64>().ok());
    let mut expected = (0..).step_by(10);
    if let Some((found, wanted)) = numbers.by_ref().zip(expected.by_ref()).find(|(a, b)| a != b) {
        bail!("{found} on standard error, not {wanted}");
    }
    Ok(())
}

/// Every line has its number and the digest of all lines before it.
fn check(output: &[u8]) -> Result<()> {
    let mut digest = Sha256::new();
    let mut lines = output.split_inclusive(|byte| *byte == b'\n');
    let mut number = 0_u64;
    for line in lines.by_ref() {
        let expected = format!("{number} {}\n", hex::encode(digest.clone().finalize()));
        if line.starts_with(b"end ") {
            ensure!(
                line == format!("end {number}\n").as_bytes(),
                "the end is {:?}",
                String::from_utf8_lossy(line)
            );
            break;
        }
        ensure!(
            line == expected.as_bytes(),
            "line {number} is {:?}, not {expected:?}",
            String::from_utf8_lossy(line)
        );
        digest.update(line);
        number += 1;
    }
    ensure!(lines.next().is_none(), "there is more after the end");
    ensure!(number > 10_000, "{number} lines only");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: u64) -> Vec<Vec<u8>> {
        let mut digest = Sha256::new();
        let mut lines = Vec::new();
        for number in 0..count {
            let line = format!("{number} {}\n", hex::encode(digest.clone().finalize())).into_bytes();
            digest.update(&line);
            lines.push(line);
        }
        lines.push(format!("end {count}\n").into_bytes());
        lines
    }

    #[test]
    fn a_lost_a_doubled_and_a_swapped_line_are_seen() {
        check(&lines(20_000).concat()).unwrap();
        let mut lost = lines(20_000);
        lost.remove(700);
        let mut doubled = lines(20_000);
        doubled.insert(700, doubled[700].clone());
        let mut swapped = lines(20_000);
        swapped.swap(700, 701);
        for wrong in [lost, doubled, swapped] {
            assert!(check(&wrong.concat()).is_err());
        }
    }
}
