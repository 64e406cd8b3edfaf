//! CRIU's log, read for the user: what went wrong, and what to do about it.

use std::fmt;
use std::path::Path;

/// A failure in a user's words.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Explanation {
    /// What stands in the way.
    pub cause: String,
    /// What to do; empty when nothing is known.
    pub remedy: String,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// One known failure: all of `marks` stand in one line of the log.
struct Known {
    marks: &'static [&'static str],
    cause: &'static str,
    remedy: &'static str,
}

/// In order of precedence: the more specific first.
const KNOWN: &[Known] = &[
    Known {
        marks: &["anon_inode:[io_uring]"],
        cause: "the application uses io_uring, which CRIU cannot dump",
        remedy: "start the container without the annotation fastmig.dev/io-uring=allow, so that the application falls back to epoll",
    },
    Known {
        marks: &["io_uring"],
        cause: "the application uses io_uring, which CRIU cannot dump",
        remedy: "start the container without the annotation fastmig.dev/io-uring=allow, so that the application falls back to epoll",
    },
    Known {
        // The kernel lets nobody hand over an io_uring, and refuses no other descriptor so.
        marks: &["send_fds failed (-22)"],
        cause: "the application uses io_uring, which CRIU cannot dump",
        remedy: "start the container without the annotation fastmig.dev/io-uring=allow, so that the application falls back to epoll",
    },
    Known {
        marks: &["Setting loginuid for CT init task failed"],
        cause: "the kernel's audit holds CRIU to the login of whoever called it, which the application has not",
        remedy: "call FastMig through its daemon, or with CAP_AUDIT_CONTROL and without `auditctl --loginuid-immutable`",
    },
    Known {
        marks: &["mismatched lsm types and lsm profile specified"],
        cause: "the application was saved under an AppArmor profile, and this host has no AppArmor",
        remedy: "restore it on a host with AppArmor, or save it from a container without a profile",
    },
    Known {
        marks: &["can't write lsm profile"],
        cause: "AppArmor does not let the application go under its container's profile",
        remedy: "see the kernel's log for what AppArmor denied",
    },
    Known {
        marks: &["Can't dump file", "of that type", "(chr "],
        cause: "the application has a device open that CRIU cannot dump",
        remedy: "close the device before the checkpoint; `fastmig check` names it",
    },
    Known {
        marks: &["Can't dump a chrdev"],
        cause: "the application has a device open that CRIU cannot dump",
        remedy: "close the device (GPU, /dev/kvm, /dev/net/tun, ...) before the checkpoint",
    },
    Known {
        marks: &["Can't dump file", "of that type"],
        cause: "the application has a file of a kind open that CRIU cannot dump",
        remedy: "see `fastmig check` for the descriptor, and close it before the checkpoint",
    },
    Known {
        marks: &["In-flight connection"],
        cause: "a client is just connecting to the application, which has not accepted the connection yet",
        remedy: "try again; or let connections be closed (annotation fastmig.dev/tcp=close)",
    },
    Known {
        marks: &["Connected TCP socket, consider using"],
        cause: "the application has an established TCP connection",
        remedy: "set the annotation fastmig.dev/tcp to close or keep",
    },
    Known {
        marks: &["External socket is used. Consider using"],
        cause: "the application is connected to a unix socket outside the container",
        remedy: "close the connection, or allow it to be cut with the checkpoint option for external unix sockets",
    },
    Known {
        marks: &["Can't dump half of stream unix connection"],
        cause: "the application is connected to a unix socket outside the container",
        remedy: "close the connection, or allow it to be cut with the checkpoint option for external unix sockets",
    },
    Known {
        marks: &["Can't lookup mount="],
        cause: "the application has a file open that lies outside the container",
        remedy: "do not hand host files to the container as its output or input; use a pipe or a bind mount",
    },
    Known {
        marks: &["Can't dump ghost file"],
        cause: "the application holds a deleted file open that is too large to travel with it",
        remedy: "raise checkpoint.ghost_limit in /etc/fastmig/config.toml",
    },
    Known {
        marks: &["ghost file", "exceeds"],
        cause: "the application holds a deleted file open that is too large to travel with it",
        remedy: "raise checkpoint.ghost_limit in /etc/fastmig/config.toml",
    },
    Known {
        marks: &["Some file locks are hold by dumping tasks"],
        cause: "the application holds file locks",
        remedy: "allow file locks in the checkpoint (FastMig does unless told otherwise)",
    },
    Known {
        marks: &["doesn't live in IPC ns"],
        cause: "the application uses System V memory of an IPC namespace that it does not own",
        remedy: "give the container an IPC namespace of its own",
    },
    Known {
        marks: &["is outside of its pid namespace"],
        cause: "the application's session began outside the container",
        remedy: "start the application through FastMig's init",
    },
    Known {
        marks: &["Unable to create a thread: -17"],
        cause: "a thread number that the application needs is taken in this container",
        remedy: "end the exec sessions of this container and restore again",
    },
    Known {
        marks: &["Pid ", " do not match expected "],
        cause: "a process number that the application needs is taken in this container",
        remedy: "end the exec sessions of this container and restore again",
    },
    Known {
        marks: &["Can't fork for", "File exists"],
        cause: "a process number that the application needs is taken in this container",
        remedy: "end the exec sessions of this container and restore again",
    },
    Known {
        marks: &["CPU capabilities do not match"],
        cause: "this host's CPU lacks features that the application has been using",
        remedy: "restore on a host with the same or a newer CPU",
    },
    Known {
        marks: &["cpu", "incompatible"],
        cause: "this host's CPU lacks features that the application has been using",
        remedy: "restore on a host with the same or a newer CPU",
    },
    Known {
        marks: &["xsave", "size"],
        cause: "this host's CPU saves another register state than the source's",
        remedy: "restore on a host with the same CPU family",
    },
    Known {
        marks: &["Can't get rlimit"],
        cause: "CRIU may not read the limits of the application's processes",
        remedy: "give FastMig's service CAP_SYS_RESOURCE",
    },
    Known {
        marks: &["Unable to set a", "clock offset"],
        cause: "CRIU may not set the clocks of the application's time namespace",
        remedy: "give FastMig's service CAP_SYS_TIME",
    },
    Known {
        marks: &[UNPRIVILEGED],
        cause: "CRIU lacks a capability",
        remedy: "give FastMig's service CAP_SYS_ADMIN, and let [confinement] in its settings not withhold it",
    },
    Known {
        marks: &["vdso: Unexpected rt vDSO area bounds"],
        cause: "this CRIU is too old for the running kernel",
        remedy: "install the CRIU that FastMig ships",
    },
    Known {
        marks: &["Can't get", "opt: Operation not supported"],
        cause: "this CRIU is too old for the running kernel",
        remedy: "install the CRIU that FastMig ships",
    },
    Known {
        marks: &["No space left on device"],
        cause: "the disk is full",
        remedy: "free space where the checkpoint is written",
    },
    Known {
        marks: &["Disk quota exceeded"],
        cause: "the disk quota is used up",
        remedy: "free space where the checkpoint is written",
    },
    Known {
        marks: &["Timeout reached"],
        cause: "the application did not freeze in time",
        remedy: "look for processes in uninterruptible sleep (state D) and try again",
    },
    Known {
        marks: &["File ", "has bad size"],
        cause: "a file that the application has open differs from what it was",
        remedy: "restore into a container with the same files, or carry the changed files along",
    },
    Known {
        marks: &["Can't open file", "No such file or directory"],
        cause: "a file that the application has open is missing in this container",
        remedy: "restore into a container of the same image, and carry the files along that the application made",
    },
    Known {
        marks: &["Can't open ", "for validation"],
        cause: "a file that the application uses is missing in this container",
        remedy: "restore into a container of the same image, and carry the files along that the application made",
    },
    Known {
        marks: &["Can't bind"],
        cause: "an address that the application listens on is taken or missing in this container",
        remedy: "free the port, or give the container the address",
    },
    Known {
        marks: &["Unexpected magic", "file"],
        cause: "a file of the checkpoint is damaged",
        remedy: "use another checkpoint",
    },
];

/// Errors that CRIU logs and lives with: a device that it probes for, a limit that it would like raised.
const HARMLESS: &[&str] = &["criu/tun.c", "Can't setup RLIMIT_NOFILE for self"];

/// What CRIU says where it does not even begin; no error by its own words.
const UNPRIVILEGED: &str = "needs to have the CAP_SYS_ADMIN or the CAP_CHECKPOINT_RESTORE";

/// The cause and remedy that the log at `log` tells, else its last error, else CRIU's short `message`.
#[must_use]
pub fn explain(log: &Path, message: &str) -> Explanation {
    let text =
        std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    explain_text(&text, message)
}

fn explain_text(log: &str, message: &str) -> Explanation {
    // The first errors are the cause, later ones their consequences.
    let harmless = |line: &str| HARMLESS.iter().any(|mark| line.contains(mark));
    let is_error = |line: &&str| line.contains(UNPRIVILEGED) || line.contains("Error (") && !harmless(line);
    let errors: Vec<&str> = log.lines().filter(is_error).collect();
    for line in &errors {
        if let Some(known) = KNOWN.iter().find(|k| k.marks.iter().all(|mark| line.contains(mark))) {
            let cause = format!("{} ({})", known.cause, without_prefix(line));
            return Explanation { cause, remedy: known.remedy.to_owned() };
        }
    }
    let cause = match (errors.first(), message) {
        (Some(line), _) => without_prefix(line).to_owned(),
        (None, "") => "no error in its log".to_owned(),
        (None, message) => message.to_owned(),
    };
    Explanation { cause, remedy: String::new() }
}

/// `(00.017) Error (criu/x.c:1): text` → `text`; a user needs no line number, the log keeps it.
fn without_prefix(line: &str) -> &str {
    line.split_once("Error (")
        .and_then(|(_, rest)| rest.split_once("): "))
        .map_or(line, |(_, text)| text)
        .trim()
}

/// The last `count` lines of a log.
#[must_use]
pub fn tail(log: &Path, count: usize) -> String {
    let text =
        std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_error_gets_cause_and_remedy() {
        let log = "(00.01) Error (criu/tun.c:85): tun: Unable to create tun: No such file or directory\n\
                   (00.02) Error (criu/files-ext.c:98): Can't dump file 6 of that type [600] (unknown /dev/anon_inode:[io_uring])\n\
                   (00.03) Error (criu/cr-dump.c:1): Dumping FAILED.";
        let explanation = explain_text(log, "");
        assert!(explanation.cause.contains("io_uring"), "{explanation}");
        assert!(explanation.remedy.contains("fastmig.dev/io-uring"), "{explanation}");
    }

    #[test]
    fn an_unknown_error_is_quoted() {
        let explanation = explain_text("(00.01) Error (criu/x.c:1): something new\n", "short");
        assert_eq!(explanation.to_string(), "something new");
    }

    #[test]
    fn without_a_log_the_message_serves() {
        assert_eq!(explain_text("", "bad luck").cause, "bad luck");
        assert_eq!(explain_text("(00.1) fine", "").cause, "no error in its log");
    }

    #[test]
    fn the_first_known_error_wins() {
        let log = "(0) Error (a.c:1): fdinfo: Can't lookup mount=12 for fd=1 path=/x\n(0) Error (b.c:2): No space left on device";
        assert!(explain_text(log, "").cause.contains("outside the container"));
    }
}
