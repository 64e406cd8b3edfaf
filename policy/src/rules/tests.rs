//! Files that are right, files that are wrong, and what the named policies come to.

use proptest::prelude::*;

use super::*;
use crate::output::Output;

fn parse(text: &str) -> Result<Rules, RulesError> {
    Rules::parse(&format!("version = 1\n{text}"), "x")
}

fn action(rules: &Rules, facts: &Facts) -> String {
    rules.decide(facts).action.to_string()
}

#[test]
fn the_named_policies_are_sound() {
    for name in named_all() {
        let text = Rules::text(name).unwrap();
        assert!(Rules::parse(text, name).is_ok(), "{name}");
    }
    assert!(Rules::named("none").is_none());
}

fn named_all() -> [&'static str; 2] {
    crate::NAMES
}

#[test]
fn the_paper_s_rules() {
    let paper = Rules::named("paper").unwrap();
    for (code, expected) in [
        (0, "restore(latest)"),
        (1, "scratch"),
        (127, "scratch"),
        (128, "standby"),
        (137, "standby"),
        (159, "standby"),
        (160, "scratch"),
        (255, "scratch"),
    ] {
        assert_eq!(action(&paper, &Facts::exited(code)), expected, "{code}");
    }
    assert_eq!(action(&paper, &Facts::not_restored()), "scratch");
}

#[test]
fn the_default_gives_up_at_last() {
    let default = Rules::named("default").unwrap();
    assert_eq!(action(&default, &Facts::exited(0)), "exit");
    assert_eq!(action(&default, &Facts::exited(137).failed(1)), "scratch");
    assert_eq!(action(&default, &Facts { oom: true, ..Facts::exited(0).failed(1) }), "scratch");
    assert_eq!(action(&default, &Facts::exited(1).failed(10)), "standby");
    let waits: Vec<_> = (1..10).map(|n| default.decide(&Facts::exited(1).failed(n)).delay).collect();
    assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
    assert!(waits[0] < Duration::from_secs(1));
}

#[test]
fn the_first_rule_that_fits_decides_and_says_so() {
    let rules = parse(
        r#"
[[rule]]
name = "the disk is full"
output = "No space left"
action = "standby"

[[rule]]
signal = ["SEGV", 6]
ran_below = "10s"
action = "restore"
checkpoint = "good-1"
delay = "3s"

[[rule]]
code = [2, "10..20"]
phase = ["checkpointing", "restoring"]
action = "scratch"
"#,
    )
    .unwrap();
    let output = Output::of(b"well\nwrite: No space left on device\n", 200);
    let full = rules.decide(&Facts { output, ..Facts::exited(1) });
    assert_eq!(full.action, Action::Standby);
    let reason =
        "exit code 1 after 0.0s, it said \"write: No space left on device\": the disk is full (policy x)";
    assert_eq!(full.reason, reason);
    let crash = rules.decide(&Facts::exited(139).after(Duration::from_secs(1)));
    assert_eq!(crash.action.to_string(), "restore(good-1)");
    assert_eq!(crash.delay, Duration::from_secs(3));
    assert!(crash.reason.contains("rule 2"), "{}", crash.reason);
    assert_eq!(action(&rules, &Facts::exited(139).after(Duration::from_secs(10))), "exit");
    let frozen = Facts { phase: Phase::Checkpointing, ..Facts::exited(15).failed(3) };
    assert_eq!(rules.decide(&frozen).delay, Duration::from_millis(400));
    assert_eq!(action(&rules, &Facts::exited(15)), "exit");
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    for (text, line, cause) in [
        ("windo = \"1s\"", 2, "windo"),
        ("window = \"1x\"", 2, "no time"),
        ("[[rule]]\naction = \"reboot\"", 3, "reboot"),
        ("[[rule]]\ncode = 256\naction = \"exit\"", 3, "exit code from 0 to 255"),
        ("[[rule]]\ncode = [1, true]\naction = \"exit\"", 3, "exit code from 0 to 255"),
        ("[[rule]]\nsignal = \"FOO\"\naction = \"exit\"", 3, "FOO"),
        ("[[rule]]\nphase = \"sleeping\"\naction = \"exit\"", 3, "checkpointing"),
        ("[[rule]]\noutput = \"(\"\naction = \"exit\"", 3, "regular expression"),
        ("[[rule]]\noutput = \"(a{1000}){1000}\"\naction = \"exit\"", 3, "size limit"),
        ("[[rule]]\naction = \"exit\"\ncheckpoint = \"x\"", 4, "belongs to"),
        ("[[rule]]\naction = \"restore\"\ncheckpoint = \"../x\"", 4, "no name"),
        ("[[rule]]\nfoo = 1\naction = \"exit\"", 3, "foo"),
        ("[[rule]]\ncode = 1", 2, "action"),
        ("[decider]\nprogram = \"x\"", 2, "absolute"),
        ("[decider]\nprogram = \"/x\"\nlimit = \"2m\"", 2, "60s"),
        ("output_lines = 30000", 2, "20000"),
        ("[backoff]\nfirst = 1", 3, "string"),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(error.line, Some(line), "{text:?}: {error}");
        assert!(error.to_string().contains(cause), "{text:?}: {error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

#[test]
fn another_version_is_refused_before_its_fields() {
    let newer = Rules::parse("shiny = 1\nversion = 2\n", "x").unwrap_err();
    assert_eq!(newer.line, Some(2));
    assert!(newer.cause.contains("version 2 is unknown"), "{newer}");
    assert!(Rules::parse("window = \"1s\"", "x").unwrap_err().cause.contains("version = 1"));
}

#[test]
fn files_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p.toml");
    std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(Rules::from_file(&path).unwrap_err().cause.contains("bytes long"));
    assert!(Rules::from_file(directory.path()).unwrap_err().cause.contains("cannot be read"));
    let rules = "[[rule]]\naction = \"exit\"\n".repeat(1001);
    assert!(parse(&rules).unwrap_err().cause.contains("1001 rules"));
}

proptest! {
    #[test]
    fn strange_text_is_refused_or_decides(text in "[a-z\\[\\]=\"0-9. \n]{0,200}", code: u8, failures: u32) {
        if let Ok(rules) = parse(&text) {
            let decision = rules.decide(&Facts::exited(code).failed(failures));
            prop_assert!(decision.reason.contains("policy x"));
        }
    }

    #[test]
    fn the_named_policies_decide_about_everything(
        code in proptest::option::of(any::<u8>()), oom: bool, seconds in 0_u64..1 << 40, failures: u32, text: Vec<u8>,
    ) {
        for name in named_all() {
            let rules = Rules::named(name).unwrap();
            let facts = Facts {
                code,
                oom,
                output: Output::of(&text, 200),
                ..Facts::default().after(Duration::from_secs(seconds)).failed(failures)
            };
            let decision = rules.decide(&facts);
            prop_assert!(decision.delay <= rules.backoff.longest);
            prop_assert_eq!(&decision, &rules.decide(&facts));
        }
    }
}
