//! Where a process's output goes, as containerd says it: a FIFO's path, `file://PATH`, `binary://PATH?ARGS`.

use std::path::PathBuf;

use crate::error::Error;

/// The destination of an output stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// `/dev/null`.
    Null,
    /// A FIFO that containerd's client reads, or a file that is there.
    Path(PathBuf),
    /// A file that is appended to, made when missing.
    File(PathBuf),
    /// A logging program.
    Binary(Binary),
}

/// A logging program and what it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binary {
    pub(crate) program: PathBuf,
    /// The query's keys and values in their order, as the stock shim passes them.
    pub(crate) arguments: Vec<String>,
    /// `binary-v2`: a program that closes its ready pipe without a word has failed.
    pub(crate) must_say_ready: bool,
}

impl Target {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Ok(Self::Null);
        }
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(Self::Path(text.into())) };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = PathBuf::from(decode(path)?);
        if !path.is_absolute() {
            return Err(invalid(format!("{text:?} has no absolute path")));
        }
        match scheme {
            "fifo" => Ok(Self::Path(path)),
            "file" => Ok(Self::File(path)),
            "binary" | "binary-v2" => Ok(Self::Binary(Binary {
                program: path,
                arguments: arguments(query)?,
                must_say_ready: scheme == "binary-v2",
            })),
            other => Err(invalid(format!("unknown STDIO scheme {other}"))),
        }
    }
}

fn arguments(query: &str) -> Result<Vec<String>, Error> {
    let mut arguments = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        arguments.push(decode(&key.replace('+', " "))?);
        arguments.push(decode(&value.replace('+', " "))?);
    }
    Ok(arguments)
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Result<String, Error> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(value.ok_or_else(|| invalid(format!("{text:?} ends or goes wrong after a %")))?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|e| invalid(format!("{text:?}: {e}")))
}

fn invalid(reason: String) -> Error {
    Error::Invalid { what: "stdio URI", reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_path_and_a_fifo_uri_are_the_same() {
        let path = Target::Path("/run/containerd/fifo/1/c-stdout".into());
        assert_eq!(Target::parse("/run/containerd/fifo/1/c-stdout").unwrap(), path);
        assert_eq!(Target::parse("fifo:///run/containerd/fifo/1/c-stdout").unwrap(), path);
        assert_eq!(Target::parse("").unwrap(), Target::Null);
    }

    #[test]
    fn a_file_uri_is_decoded() {
        assert_eq!(
            Target::parse("file:///var/log/a%20b.log").unwrap(),
            Target::File("/var/log/a b.log".into())
        );
    }

    #[test]
    fn a_loggers_arguments_are_its_query_in_order() {
        let target = Target::parse("binary:///usr/bin/logger?--tag=a%2Fb&verbose&x=1+2").unwrap();
        let Target::Binary(binary) = target else { panic!("{target:?}") };
        assert_eq!(binary.program, PathBuf::from("/usr/bin/logger"));
        assert_eq!(binary.arguments, ["--tag", "a/b", "verbose", "", "x", "1 2"]);
        assert!(!binary.must_say_ready);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["gopher:///x", "file://relative", "file:///%zz", "file:///%4", "binary:///x?a=%ff"] {
            assert!(matches!(Target::parse(text), Err(Error::Invalid { .. })), "{text}");
        }
    }
}
