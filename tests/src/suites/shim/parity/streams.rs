//! What goes in and comes out: pipes and terminals.

use std::time::Duration;

use anyhow::{ensure, Result};

use crate::framework::image::reference;
use crate::framework::{Ctx, Generation, Host};
use crate::suites::shim::stage::{self, ctr_run, FASTMIG, STOCK};

pub(super) fn pipes(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    for runtime in [STOCK, FASTMIG] {
        let cat = ctr_run(&host, runtime, &["--rm"], "busybox", "cat", &["cat"]);
        ensure!(cat.stdin("a line\nno end").ok()? == "a line\nno end", "{runtime}: cat");
        let both = "read a; echo \"out $a\"; echo \"err $a\" >&2; cat >/dev/null";
        let output = ctr_run(&host, runtime, &["--rm"], "busybox", "both", &["sh", "-c", both]);
        let output = output.stdin("x\nrest\n").output()?;
        ensure!(
            (output.out(), output.err()) == ("out x\n".into(), "err x\n".into()),
            "{runtime}: {output:?}"
        );
        through(&host, runtime)?;
        outlived(&host, runtime)?;
    }
    stage::nothing_is_left(&host)
}

/// Ten megabytes go in and come out, none lost and none changed.
fn through(host: &Host, runtime: &str) -> Result<()> {
    let image = reference("busybox");
    let script = format!(
        "head -c 10485760 /dev/urandom >/tmp/sent && \
         ctr run --rm --runtime {runtime} {image} through cat </tmp/sent | cmp - /tmp/sent && rm /tmp/sent"
    );
    host.sh(&script).timeout(Duration::from_secs(60)).ok().map(drop)
}

/// The last words of a container are not lost with it.
fn outlived(host: &Host, runtime: &str) -> Result<()> {
    let script = "head -c 3000000 /dev/zero | tr '\\0' x; exit 4";
    let output = ctr_run(host, runtime, &["--rm"], "busybox", "words", &["sh", "-c", script]).output()?;
    ensure!(output.status.code() == Some(4), "{runtime}: {:?}", output.status);
    let all = output.stdout.len() == 3_000_000 && output.stdout.iter().all(|byte| *byte == b'x');
    ensure!(all, "{runtime}: {} bytes of 3000000", output.stdout.len());
    Ok(())
}

/// Looks at its terminal as programs do that behave differently on one.
const ON_TERMINAL: &str =
    "tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo all three; echo $TERM; \
                           stty -a | tr -d ';' | grep -o -E ' (-?icanon|-?echo|-?isig) '; \
                           ls -l /dev/console | cut -c1-10; set -m; sleep 0.01 & wait; echo job; \
                           trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.02; done";

pub(super) fn terminal(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    let stock = on_terminal(&host, STOCK)?;
    let ours = on_terminal(&host, FASTMIG)?;
    ensure!(stock == ours, "the stock shim gives {stock:?}, FastMig's {ours:?}");
    ensure!(ours.1.contains("all three") && ours.1.contains("/dev/pts/0"), "{}", ours.1);
    ensure!(ours.1.contains("interrupted") && ours.0 == Some(5), "{ours:?}");
    stage::nothing_is_left(&host)
}

/// Runs it with `script` as the terminal, whose control-C must arrive as a signal.
fn on_terminal(host: &Host, runtime: &str) -> Result<(Option<i32>, String)> {
    host.write_file("/tmp/on-terminal", ON_TERMINAL)?;
    let image = reference("busybox");
    let run = format!(
        "stty rows 33 cols 101; ctr run --rm --tty --runtime {runtime} \
         --mount type=bind,src=/tmp/on-terminal,dst=/on-terminal,options=rbind:ro {image} terminal sh /on-terminal"
    );
    let mut script = host.cmd(["script", "-qec", &run, "/dev/null"]).spawn_with_stdin()?;
    let mut keyboard = script.take_stdin();
    script.wait_for_output("ready", stage::SOON)?;
    if let Some(keyboard) = &mut keyboard {
        std::io::Write::write_all(keyboard, b"\x03")?;
    }
    let output = script.wait(stage::SOON)?;
    Ok((output.status.code(), output.out()))
}
