//! A program that decides instead of the rules: asked by JSON on its standard input, answered on its standard output, within
//! a limit. Whatever goes wrong with it, the rules decide.

use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fastmig_policy::question::{self, Question, MAX_ANSWER};
use fastmig_policy::{Decider, Decision, Facts, Rules};
use nix::sys::signal::{killpg, Signal};
use nix::unistd::Pid;

/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(1);

/// What `rules` make of an end, or the program that they name: the reason then tells why it did not decide, if it did not.
#[must_use]
pub fn decide(rules: &Rules, namespace: &str, container: &str, facts: &Facts) -> Decision {
    let Some(decider) = &rules.decider else { return rules.decide(facts) };
    let question = Question::new(namespace, container, facts);
    match ask(decider, &question).and_then(|answer| question::read(&answer, facts)) {
        Ok(decision) => decision,
        Err(why) => {
            let decision = rules.decide(facts);
            let program = decider.program.display();
            Decision { reason: format!("{}; {program} did not decide: {why}", decision.reason), ..decision }
        }
    }
}

/// Its answer, not read yet.
fn ask(decider: &Decider, question: &Question<'_>) -> Result<Vec<u8>, String> {
    require_trusted(decider)?;
    let text = serde_json::to_vec(question).map_err(|e| e.to_string())?;
    let mut child = start(decider).map_err(|e| format!("it cannot be started: {e}"))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    thread::spawn(move || {
        // EPIPE: it does not want to know.
        let _ = stdin.map(|mut stdin| stdin.write_all(&text));
    });
    let answer = thread::spawn(move || {
        let mut answer = Vec::new();
        // One more than is allowed shows that there is more.
        let read = stdout.map(|stdout| stdout.take(MAX_ANSWER as u64 + 1).read_to_end(&mut answer));
        read.transpose().map(|_| answer)
    });
    let ended = wait(&mut child, decider.limit);
    end(&mut child);
    let status = ended.map_err(|e| format!("it cannot be waited for: {e}"))?;
    let status = status.ok_or_else(|| format!("it took longer than {:?}", decider.limit))?;
    let answer = answer.join().map_err(|_| "its answer was lost".to_owned())?;
    let answer = answer.map_err(|e| format!("its answer cannot be read: {e}"))?;
    // Who says too much may end by SIGPIPE, for nobody reads on: that is not why.
    if !status.success() && answer.len() <= MAX_ANSWER {
        return Err(format!("it failed: {status}"));
    }
    Ok(answer)
}

/// It runs as root: nobody else may have written it.
fn require_trusted(decider: &Decider) -> Result<(), String> {
    let metadata = std::fs::metadata(&decider.program).map_err(|e| format!("it is not there: {e}"))?;
    if super::is_trusted(&metadata) {
        return Ok(());
    }
    Err(format!(
        "others than root may write it (owner {}, mode {:o})",
        metadata.uid(),
        metadata.mode() & 0o7777
    ))
}

fn start(decider: &Decider) -> io::Result<Child> {
    const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut command = Command::new(&decider.program);
    command.args(&decider.arguments).env_clear().env("PATH", PATH).current_dir("/").process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
}

fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<std::process::ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait()? {
            None if Instant::now() < deadline => thread::sleep(LOOK),
            ended => return Ok(ended),
        }
    }
}

/// With all that it has started: what holds its output open would keep us waiting.
fn end(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // ESRCH: nothing of it is left.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fastmig_policy::Action;

    use super::*;

    fn decided(directory: &Path, script: &str, limit: &str) -> Decision {
        let program = directory.join("decider");
        crate::files::write_script(&program, script);
        let text = format!(
            "version = 1\n[decider]\nprogram = {program:?}\nlimit = \"{limit}\"\n[[rule]]\naction = \"standby\"\n"
        );
        let rules = Rules::parse(&text, "x").unwrap();
        decide(&rules, "default", "web", &Facts::exited(3).failed(2))
    }

    #[test]
    fn a_program_decides_by_what_it_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let script = r#"grep -q '"container":"web".*"code":3.*"failures":2' && echo '{"action":"scratch","reason":"so be it"}'"#;
        let decision = decided(directory.path(), script, "10s");
        assert_eq!(decision.action, Action::Scratch, "{}", decision.reason);
        assert!(decision.reason.ends_with("so be it"), "{}", decision.reason);
    }

    #[test]
    fn whatever_goes_wrong_with_it_the_rules_decide() {
        let directory = tempfile::tempdir().unwrap();
        for (script, limit, why) in [
            ("exit 7", "10s", "exit status: 7"),
            ("sleep 1000 & sleep 1000", "50ms", "took longer"),
            ("sleep 1000 & echo nonsense", "10s", "its answer is none"),
            ("head -c 100000 /dev/zero", "10s", "longer than"),
            ("kill -9 $$", "10s", "signal: 9"),
        ] {
            let decision = decided(directory.path(), script, limit);
            assert_eq!(decision.action, Action::Standby, "{script}");
            assert!(decision.reason.contains(why), "{script}: {}", decision.reason);
        }
        let missing = "version = 1\n[decider]\nprogram = \"/none\"\n[[rule]]\naction = \"standby\"\n";
        let decision = decide(&Rules::parse(missing, "x").unwrap(), "n", "c", &Facts::exited(1));
        assert!(decision.reason.contains("not there"), "{}", decision.reason);
    }

    #[test]
    fn a_program_that_others_may_write_is_not_run() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        decided(directory.path(), "echo '{\"action\":\"scratch\"}'", "10s");
        let program = directory.path().join("decider");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o777)).unwrap();
        let decider = Decider { program, arguments: Vec::new(), limit: Duration::from_secs(1) };
        assert!(require_trusted(&decider).unwrap_err().contains("may write"));
    }
}
