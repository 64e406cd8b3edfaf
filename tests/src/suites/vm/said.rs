//! What the machine has said of a test.

use crate::framework::Tally;

/// The end of one test.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum End {
    /// With this exit code, after so many seconds, and what it has printed.
    Code(i32, f64, String),
    /// It did not begin, or did not end.
    None(String),
}

/// The end of the test that was begun by `line`.
pub(super) fn of(said: &str, line: &str) -> End {
    let begin = format!("@ begin {line}\n");
    let Some((before, after)) = said.split_once(&begin) else { return End::None("it did not begin".into()) };
    let Some((printed, rest)) = after.split_once("\n@ end ") else { return End::None(after.to_owned()) };
    let mut words = rest.split_ascii_whitespace();
    let code = words.next().and_then(|word| word.parse().ok());
    let ended: Option<f64> = words.next().and_then(|word| word.parse().ok());
    let begun =
        before.rsplit_once("\n@ end ").and_then(|(_, end)| end.split_ascii_whitespace().nth(1)?.parse().ok());
    match (code, ended) {
        (Some(code), Some(ended)) => End::Code(code, ended - begun.unwrap_or(ended), printed.to_owned()),
        _ => End::None(after.to_owned()),
    }
}

/// Prints a line for the test `name`, and counts it.
pub(super) fn judge(name: &str, end: &End, tally: &mut Tally) {
    let (count, word, seconds, told) = match end {
        End::Code(0, seconds, printed) => match reason(printed) {
            Some(reason) => (&mut tally.skipped, "skipped", *seconds, reason.to_owned()),
            None => (&mut tally.passed, "ok", *seconds, String::new()),
        },
        End::Code(_, seconds, printed) => (&mut tally.failed, "FAILED", *seconds, printed.trim().to_owned()),
        End::None(printed) => (&mut tally.failed, "FAILED", 0.0, printed.trim().to_owned()),
    };
    *count += 1;
    println!("vm: {name} ... {word} ({seconds:.2} s)");
    if !told.is_empty() {
        println!("    {}", told.replace('\n', "\n    "));
    }
}

/// Why a test has ended early, in its own words.
fn reason(printed: &str) -> Option<&str> {
    printed.lines().find_map(|line| line.split_once("skipped: ")).map(|(_, reason)| reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str =
        "\n@ end 0 1.00\n\n@ begin m live a\nrunning 1 test\ntest a ... ok\n\n@ end 0 2.50\n\n\
        @ begin m live b\ntest b ... skipped: no disk\nok\n\n@ end 0 3.75\n\n\
        @ begin m live c\nassertion failed\n\n@ end 101 4.00\n\n@ begin m live d\nkilled";

    #[test]
    fn each_test_is_found() {
        let End::Code(0, seconds, printed) = of(SAID, "m live b") else { panic!("b") };
        assert_eq!((seconds, reason(&printed)), (1.25, Some("no disk")));
        assert_eq!(of(SAID, "m live d"), End::None("killed".into()));
        assert!(matches!(of(SAID, "m live e"), End::None(_)));
    }

    #[test]
    fn ends_are_counted() {
        let mut tally = Tally::default();
        for test in ["a", "b", "c", "d", "e"] {
            judge(test, &of(SAID, &format!("m live {test}")), &mut tally);
        }
        assert_eq!(tally, Tally { passed: 1, failed: 3, skipped: 1 });
    }
}
