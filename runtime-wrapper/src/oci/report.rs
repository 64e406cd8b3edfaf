//! Errors as runc says them: into the caller's log, or onto standard error, in the format that it asked for.
//! containerd's shim and conmon read that log to say why.

use std::fs::OpenOptions;
use std::io::Write;

use fastmig_engine::runc::{Log, RuncError};
use fastmig_engine::Error;

/// Says `error`, unless runc has said it already.
pub(crate) fn say(log: &Log, error: &Error) {
    if !matches!(error, Error::Runc(RuncError::Failed { .. })) {
        say_text(log, &error.report());
    }
}

/// Says one line.
pub(crate) fn say_text(log: &Log, text: &str) {
    let line = line(log, text);
    let Some(path) = &log.path else {
        eprintln!("{line}");
        return;
    };
    let written =
        OpenOptions::new().append(true).create(true).open(path).and_then(|mut file| writeln!(file, "{line}"));
    if let Err(e) = written {
        eprintln!("fastmig: could not write the log {}: {e}", path.display());
    }
    eprintln!("{text}");
}

fn line(log: &Log, text: &str) -> String {
    let time = fastmig_engine::now();
    if log.format.as_deref() == Some("json") {
        return serde_json::json!({ "level": "error", "msg": text, "time": time }).to_string();
    }
    format!("time=\"{time}\" level=error msg={text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_in_the_callers_format() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.json");
        let mut log = Log { path: Some(path.clone()), format: Some("json".into()), debug: false };
        say_text(&log, "it \"broke\"");
        let value: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!((value["level"].as_str(), value["msg"].as_str()), (Some("error"), Some("it \"broke\"")));
        log.format = None;
        assert!(line(&log, "it \"broke\"").ends_with(r#"level=error msg="it \"broke\"""#));
    }
}
