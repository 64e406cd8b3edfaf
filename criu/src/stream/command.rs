//! Options as CRIU's command line takes them. What they mean is said in [`crate::options`].

use crate::log::Detail;
use crate::options::{Common, DumpOptions, RestoreOptions, Tcp};

impl DumpOptions {
    /// The command line of a streamed dump, after the program and its global options.
    pub(crate) fn arguments(&self, detail: Detail) -> Vec<String> {
        let mut line = words(&["dump", "--tree", &self.pid.to_string()]);
        line.extend(common(self.images, &self.common, detail));
        // Never the default: a dump that kills would take the decision out of our hands.
        line.push(if self.leave_stopped { "--leave-stopped" } else { "--leave-running" }.into());
        line.extend(words(&["--ghost-limit", &self.ghost_limit.to_string()]));
        line.extend(words(&["--timeout", &self.freeze_timeout.to_string()]));
        for name in &self.external {
            line.extend(words(&["--external", name]));
        }
        if let Some(fd) = self.freezer {
            line.extend(words(&["--freeze-cgroup", &format!("/proc/self/fd/{fd}")]));
        }
        line
    }
}

impl RestoreOptions {
    /// The command line of a streamed restore, after the program and its global options.
    pub(crate) fn arguments(&self, detail: Detail) -> Vec<String> {
        let mut line = words(&["restore", "--restore-detached"]);
        line.extend(common(self.images, &self.common, detail));
        line.push("--skip-file-rwx-check".into());
        if let Some(label) = self.lsm_profile() {
            line.extend(["--lsm-profile".into(), label]);
        }
        for file in &self.inherited {
            line.extend(words(&["--inherit-fd", &format!("fd[{}]:{}", file.fd, file.key)]));
        }
        line
    }
}

fn common(images: i32, common: &Common, detail: Detail) -> Vec<String> {
    let mut line = words(&["--stream", "--images-dir", &format!("/proc/self/fd/{images}")]);
    line.push(format!("-v{}", common.log_level(detail)));
    line.extend(words(&["--manage-cgroups=ignore", "--link-remap"]));
    line.extend(match common.tcp {
        Tcp::Keep => words(&["--network-lock", "nftables", "--tcp-established"]),
        Tcp::Close => words(&["--network-lock", "skip", "--tcp-close", "--skip-in-flight"]),
        Tcp::Refuse => words(&["--network-lock", "skip"]),
    });
    let switches = [
        (common.external_unix_sockets, "--ext-unix-sk"),
        (common.file_locks, "--file-locks"),
        (common.shell_job, "--shell-job"),
    ];
    line.extend(switches.iter().filter(|(on, _)| *on).map(|(_, word)| (*word).to_owned()));
    line
}

fn words(line: &[&str]) -> Vec<String> {
    line.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::InheritedFd;

    #[test]
    fn a_dump_never_kills_and_streams() {
        let mut options = DumpOptions {
            pid: 1001,
            images: 5,
            freezer: Some(7),
            external: vec!["tty[1:2]".into()],
            common: Common { tcp: Tcp::Close, file_locks: true, ..Common::default() },
            ghost_limit: 1,
            freeze_timeout: 9,
            leave_stopped: true,
        };
        let line = options.arguments(Detail::Problems).join(" ");
        for part in [
            "--leave-stopped",
            "--stream",
            "--images-dir /proc/self/fd/5",
            "--freeze-cgroup /proc/self/fd/7",
            "--external tty[1:2]",
            "--tcp-close",
            "--file-locks",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        options.leave_stopped = false;
        assert!(options.arguments(Detail::Problems).contains(&"--leave-running".to_owned()));
    }

    #[test]
    fn streams_are_inherited_by_name() {
        let options = RestoreOptions {
            lazy: false,
            images: 5,
            inherited: vec![InheritedFd { key: "pipe:[77]".into(), fd: 9 }],
            label: Some("fastmig-container".into()),
            common: Common { tcp: Tcp::Keep, ..Common::default() },
        };
        let line = options.arguments(Detail::Problems).join(" ");
        for part in
            ["--inherit-fd fd[9]:pipe:[77]", "--tcp-established", "--lsm-profile apparmor:fastmig-container"]
        {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
}
