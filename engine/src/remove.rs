//! Removing a container, also one whose shim was killed.

use crate::runc::Runc;
use crate::state::{Directory, Key, Record};
use crate::tree::network_lock;
use crate::{runc, Config, Container, Error};

impl Container {
    /// Removes the container. Removing what is gone is no error.
    ///
    /// # Errors
    /// When it still runs and `force` is not given, or runc fails.
    pub fn delete(&self, force: bool) -> Result<(), Error> {
        let record = self.directory.load(&self.key)?;
        clear_cgroup(&self.config, &record, force);
        remove(&self.directory, &record.key, &self.runc(&record), force)?;
        unlock_network(&record);
        Ok(())
    }

    /// Removes whatever is left of a container after its shim died. What is already gone is no error.
    ///
    /// # Errors
    /// When something is left that cannot be removed.
    pub fn purge(config: &Config, key: &Key, runc: &runc::Options) -> Result<(), Error> {
        let directory = Directory::of(config, key);
        let record = directory.load(key).ok();
        if let Some(record) = &record {
            clear_cgroup(config, record, true);
        }
        // containerd purges after every end, mostly when all is gone: runc must not fail for want of a place to log.
        let log = if directory.path().exists() { directory.file("runc.log") } else { "/dev/null".into() };
        let options = record.as_ref().map_or(runc, |record| &record.runc);
        remove(&directory, key, &Runc::new(options.clone(), log, config.limits.runc()), true)?;
        if let Some(record) = &record {
            unlock_network(record);
        }
        Ok(())
    }
}

/// Takes away the application's own cgroup, which runc knows nothing of.
fn clear_cgroup(config: &Config, record: &Record, force: bool) {
    if let Some(cgroup) = &record.cgroup {
        if force {
            // Frozen processes would outlive their init's death.
            let _ = cgroup.kill_all(config.limits.freeze());
        }
        // One that is still in use makes runc's delete fail, which says so.
        let _ = cgroup.remove();
    }
}

/// A container that is gone waits for no connections. While it stands, a delete that runc refuses must not touch them.
fn unlock_network(record: &Record) {
    if let Some(table) = &record.network_lock {
        // A network namespace of its own has gone with the container; otherwise it is ours.
        let ours = i32::try_from(std::process::id()).unwrap_or(0);
        if let Err(e) = network_lock::release(ours, table) {
            tracing::warn!(table, error = %e, "the lock on old connections stays");
        }
    }
}

fn remove(directory: &Directory, key: &Key, runc: &Runc, force: bool) -> Result<(), Error> {
    let arguments: &[&str] = if force { &["delete", "--force", key.id()] } else { &["delete", key.id()] };
    match runc.run(arguments) {
        Err(e) if e.kind() != crate::Kind::NotFound => return Err(e.into()),
        _ => {}
    }
    directory.remove()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stand-in for runc that, as the real one, fails when it cannot open its log, and knows no container.
    #[test]
    fn purging_what_is_gone_is_no_error() {
        let root = tempfile::tempdir().unwrap();
        let binary = root.path().join("runc");
        let script = ": >> \"$4\" || exit 1\necho 'container does not exist' >&2; exit 1";
        crate::files::write_script(&binary, script);
        let config = Config { state_root: root.path().join("state"), ..Config::default() };
        let options = runc::Options { binary, root: root.path().into(), systemd_cgroup: false };
        Container::purge(&config, &Key::new("n", "gone").unwrap(), &options).unwrap();
    }
}
