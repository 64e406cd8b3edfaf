//! What a dump and a restore are told, in our words, and its translation into CRIU's.

use std::os::fd::RawFd;

use rust_criu::rust_criu_protobuf::rpc;

use crate::log::Detail;

/// What becomes of established TCP connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tcp {
    /// They are closed in the restored application, which sees an error on its next read or write.
    #[default]
    Close,
    /// They live on; the address must move along (CRIU's `--tcp-established`).
    Keep,
    /// A dump with an established connection fails (what runc does without `--tcp-established`).
    Refuse,
}

/// A descriptor that takes the place of one in the image (CRIU's `--inherit-fd`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InheritedFd {
    /// The image's name of the file: `pipe:[inode]`, `tty[rdev:dev]`, ...
    pub key: String,
    /// The number of the descriptor in CRIU's process.
    pub fd: RawFd,
}

/// Options that a dump and a restore must agree on, or the restore fails on what the dump wrote.
#[derive(Debug, Clone, Default)]
pub struct Common {
    /// What becomes of established TCP connections.
    pub tcp: Tcp,
    /// Unix sockets with a peer outside the application (its end is closed on restore).
    pub external_unix_sockets: bool,
    /// File locks are dumped too.
    pub file_locks: bool,
    /// A session that begins outside the application is accepted (`--shell-job`).
    pub shell_job: bool,
}

impl Common {
    /// CRIU's `-v`.
    pub(crate) fn log_level(&self, detail: Detail) -> i32 {
        match (detail, self.tcp) {
            (Detail::Everything, _) => 4,
            // It tells the name of the lock on the connections in passing.
            (Detail::Problems, Tcp::Keep) => 3,
            (Detail::Problems, _) => 2,
        }
    }
}

/// How to dump.
#[derive(Debug, Clone)]
pub struct DumpOptions {
    /// The application's root, as numbered in the pid namespace that CRIU has joined.
    pub pid: i32,
    /// CRIU's descriptor of the image directory.
    pub images: RawFd,
    /// CRIU's descriptor of the application's own freezer cgroup.
    pub freezer: Option<RawFd>,
    /// Files outside that a restore will be given (`tty[rdev:dev]`, `file[..]`).
    pub external: Vec<String>,
    /// See [`Common`].
    pub common: Common,
    /// Deleted files larger than this many bytes make the dump fail.
    pub ghost_limit: u32,
    /// Seconds that CRIU itself waits for the application to freeze.
    pub freeze_timeout: u32,
    /// Dumped tasks are left stopped, their connections locked; otherwise they go on as they were.
    pub leave_stopped: bool,
}

/// How to restore.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// CRIU's descriptor of the image directory.
    pub images: RawFd,
    /// Memory that is in no image comes later: CRIU hands the userfaultfds over ([`crate::LazySocket`]).
    pub lazy: bool,
    /// Descriptors that replace the image's.
    pub inherited: Vec<InheritedFd>,
    /// The AppArmor label that takes the place of each one in the images.
    pub label: Option<String>,
    /// See [`Common`].
    pub common: Common,
}

impl DumpOptions {
    pub(crate) fn request(&self, detail: Detail) -> rpc::Criu_req {
        let mut options = base(self.images, &self.common, detail);
        options.set_pid(self.pid);
        // Never the default: a dump that kills would take the decision out of our hands.
        if self.leave_stopped {
            options.set_leave_stopped(true);
        } else {
            options.set_leave_running(true);
        }
        options.set_ghost_limit(self.ghost_limit);
        options.set_timeout(self.freeze_timeout);
        options.external.clone_from(&self.external);
        if let Some(fd) = self.freezer {
            options.set_freeze_cgroup(format!("/proc/self/fd/{fd}"));
        }
        request(rpc::Criu_req_type::DUMP, options)
    }
}

impl RestoreOptions {
    /// The label as CRIU takes it.
    pub(crate) fn lsm_profile(&self) -> Option<String> {
        self.label.as_ref().map(|label| format!("apparmor:{label}"))
    }

    pub(crate) fn request(&self, detail: Detail) -> rpc::Criu_req {
        let mut options = base(self.images, &self.common, detail);
        options.inherit_fd = self
            .inherited
            .iter()
            .map(|file| {
                let mut message = rpc::Inherit_fd::new();
                message.set_key(file.key.clone());
                message.set_fd(file.fd);
                message
            })
            .collect();
        options.set_lazy_pages(self.lazy);
        options.lsm_profile = self.lsm_profile();
        // The engines give a container's root different permissions; what the files are is looked at all the same.
        options.set_skip_file_rwx_check(true);
        request(rpc::Criu_req_type::RESTORE, options)
    }
}

fn request(kind: rpc::Criu_req_type, options: rpc::Criu_opts) -> rpc::Criu_req {
    let mut request = rpc::Criu_req::new();
    request.set_type(kind);
    request.opts = protobuf::MessageField::some(options);
    request
}

/// CRIU resolves `images_dir_fd` through the peer's pid, which it cannot see from another pid namespace: the
/// path of its own descriptor does the same.
fn base(images: RawFd, common: &Common, detail: Detail) -> rpc::Criu_opts {
    let mut options = rpc::Criu_opts::new();
    options.set_images_dir_fd(-1);
    options.set_images_dir(format!("/proc/self/fd/{images}"));
    options.set_log_level(common.log_level(detail));
    options.set_log_to_stderr(true);
    options.set_manage_cgroups_mode(rpc::Criu_cg_mode::IGNORE);
    // Only connections that live on need their packets held back, and nftables takes some 12 ms to load.
    options.set_network_lock(match common.tcp {
        Tcp::Keep => rpc::Criu_network_lock_method::NFTABLES,
        Tcp::Close | Tcp::Refuse => rpc::Criu_network_lock_method::SKIP,
    });
    options.set_tcp_established(common.tcp == Tcp::Keep);
    options.set_tcp_close(common.tcp == Tcp::Close);
    // Where connections are closed, one that nobody has accepted yet is no reason to fail.
    options.set_tcp_skip_in_flight(common.tcp == Tcp::Close);
    options.set_ext_unix_sk(common.external_unix_sockets);
    options.set_file_locks(common.file_locks);
    options.set_shell_job(common.shell_job);
    options.set_link_remap(true);
    options.set_notify_scripts(true);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump() -> DumpOptions {
        DumpOptions {
            pid: 1001,
            images: 5,
            freezer: Some(7),
            external: vec!["tty[1:2]".into()],
            common: Common::default(),
            ghost_limit: 1,
            freeze_timeout: 9,
            leave_stopped: false,
        }
    }

    #[test]
    fn a_dump_never_kills_by_itself() {
        let running = dump().request(Detail::Problems);
        assert!(running.opts.leave_running());
        let stopped = DumpOptions { leave_stopped: true, ..dump() }.request(Detail::Problems);
        assert!(stopped.opts.leave_stopped() && !stopped.opts.leave_running());
    }

    #[test]
    fn descriptors_are_named_from_within() {
        let request = dump().request(Detail::Problems);
        assert_eq!(request.opts.images_dir(), "/proc/self/fd/5");
        assert_eq!(request.opts.freeze_cgroup(), "/proc/self/fd/7");
        assert_eq!(request.opts.images_dir_fd(), -1);
    }

    #[test]
    fn tcp_modes_exclude_each_other() {
        for (tcp, keep, close) in
            [(Tcp::Keep, true, false), (Tcp::Close, false, true), (Tcp::Refuse, false, false)]
        {
            let common = Common { tcp, ..Common::default() };
            let options = RestoreOptions { images: 1, lazy: false, inherited: vec![], label: None, common };
            let options = options.request(Detail::Problems).opts;
            assert_eq!((options.tcp_established(), options.tcp_close()), (keep, close));
        }
    }
}
