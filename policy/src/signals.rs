//! Signals as people write them: `KILL`, `SIGKILL`, `9`.

/// The names of 1 to 31 on x86-64 and aarch64, in order.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The number of a signal, which may be a number already.
///
/// # Errors
/// When there is no such signal.
pub fn number(text: &str) -> Result<u8, String> {
    let wrong = || format!("{text:?} is no signal: give a name such as SEGV, or a number from 1 to 64");
    if let Ok(number) = text.parse::<u8>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(wrong()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let index = NAMES.iter().position(|known| *known == name).ok_or_else(wrong)?;
    u8::try_from(index + 1).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_mean_the_same() {
        for text in ["KILL", "SIGKILL", "sigkill", "9"] {
            assert_eq!(number(text), Ok(9), "{text}");
        }
        assert_eq!([number("TERM"), number("SYS"), number("64")], [Ok(15), Ok(31), Ok(64)]);
        for text in ["", "0", "65", "SIG", "FOO", "-9"] {
            assert!(number(text).is_err(), "{text}");
        }
    }
}
