//! What goes in and comes out: pipes and terminals.

use std::io::Write;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::framework::image::reference;
use crate::framework::process::wait_until;
use crate::framework::{Ctx, Generation, Host};
use crate::suites::shim::stage::{self, ctr_run, Task, FASTMIG, SOON, STOCK};

pub(super) fn pipes(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = stage::host(ctx, generation)?;
    for runtime in [STOCK, FASTMIG] {
        echoed(&host, runtime)?;
        through(&host, runtime)?;
        outlived(&host, runtime)?;
    }
    stage::nothing_is_left(&host)
}

/// What is typed arrives, and its end too. It ends only when something has come back: `ctr` forgets an end that comes early.
fn echoed(host: &Host, runtime: &str) -> Result<()> {
    let task = Task { host, id: "echoed".into() };
    let script = "read a; echo \"out $a\"; echo \"err $a\" >&2; cat; echo end; exit 3";
    let run = ctr_run(host, runtime, &["--rm"], "busybox", &task.id, &["sh", "-c", script]);
    let mut run = run.spawn_with_stdin()?;
    let mut input = run.take_stdin().context("no standard input")?;
    input.write_all(b"x\nthe rest")?;
    run.wait_for_output("rest", SOON)?;
    drop(input);
    let output = run.wait(SOON)?;
    ensure!(output.status.code() == Some(3), "{runtime}: {output:?}");
    ensure!(output.out() == "out x\nthe restend\n" && output.err() == "err x\n", "{runtime}: {output:?}");
    Ok(())
}

/// Ten megabytes go in and come out, none lost and none changed. `cat` ends only when all has arrived: `ctr` may drop what it
/// has not read when a container ends.
fn through(host: &Host, runtime: &str) -> Result<()> {
    let task = Task { host, id: "through".into() };
    let mut run = ctr_run(host, runtime, &["--rm"], "busybox", &task.id, &["cat"]).spawn_with_stdin()?;
    let mut input = run.take_stdin().context("no standard input")?;
    let sent: Vec<u8> = (0_u32..10 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let copy = sent.clone();
    let writer = std::thread::spawn(move || input.write_all(&copy).map(|()| input));
    let arrived = wait_until(Duration::from_secs(60), || run.stdout().len() >= sent.len());
    arrived.with_context(|| format!("{runtime}: {} of {} bytes", run.stdout().len(), sent.len()))?;
    drop(writer.join().ok().context("the writer panicked")??);
    let output = run.wait(SOON)?;
    ensure!(output.status.code() == Some(0) && output.stdout == sent, "{runtime}: {}", output.stdout.len());
    Ok(())
}

/// The last words of a container are not lost with it.
fn outlived(host: &Host, runtime: &str) -> Result<()> {
    let options = ["--log-uri", "file:///tmp/words"];
    let script = "head -c 3000000 /dev/zero | tr '\\0' x; echo the end >&2; exit 4";
    host.cmd(["rm", "-f", "/tmp/words"]).ok()?;
    let task = Task::start(host, runtime, &options, "words", &["sh", "-c", script])?;
    task.wait_for_status("STOPPED")?;
    if runtime == STOCK {
        // The stock shim may still be writing when it says that the container has ended.
        let _ = wait_until(SOON, || host.read_file("/tmp/words").is_ok_and(|words| words.len() == 3_000_008));
    }
    let said = task.ctr(&["rm"], &[]).output()?;
    ensure!(said.err().contains("exit code 4"), "{runtime}: {said:?}");
    task.remove()?;
    let words = host.read_file("/tmp/words")?;
    let plain = words.iter().filter(|byte| **byte == b'x').count();
    ensure!(plain == 3_000_000 && words.len() == plain + 8, "{runtime}: {plain} of {} bytes", words.len());
    host.cmd(["rm", "/tmp/words"]).ok().map(drop)
}

/// Looks at its terminal as programs do that behave differently on one.
const ON_TERMINAL: &str =
    "tty; until test \"$(stty size 2>/dev/null)\" = '33 101'; do sleep 0.02; done; test -t 0 && test -t 1 && test -t 2 && echo all three; echo $TERM; \
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
    let _task = Task { host, id: "terminal".into() };
    let image = reference("busybox");
    let run = format!(
        "stty rows 33 cols 101; ctr run --rm --tty --runtime {runtime} \
         --mount type=bind,src=/tmp/on-terminal,dst=/on-terminal,options=rbind:ro {image} terminal sh /on-terminal"
    );
    let mut script = host.cmd(["script", "-qec", &run, "/dev/null"]).spawn_with_stdin()?;
    let mut keyboard = script.take_stdin();
    script.wait_for_output("ready", SOON)?;
    if let Some(keyboard) = &mut keyboard {
        keyboard.write_all(b"\x03")?;
    }
    let output = script.wait(SOON)?;
    Ok((output.status.code(), output.out()))
}
