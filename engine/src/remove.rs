//! Removing a container, also one whose shim was killed.

use crate::cgroup::ApplicationCgroup;
use crate::runc::Runc;
use crate::state::{Directory, Key};
use crate::{runc, Config, Container, Error};

impl Container {
    /// Removes the container. Removing what is gone is no error.
    ///
    /// # Errors
    /// When it still runs and `force` is not given, or runc fails.
    pub fn delete(&self, force: bool) -> Result<(), Error> {
        let record = self.directory.load(&self.key)?;
        remove(&self.config, &self.directory, &record.key, &record.runc, record.pid, force)
    }

    /// Removes whatever is left of a container after its shim died. What is already gone is no error.
    ///
    /// # Errors
    /// When something is left that cannot be removed.
    pub fn purge(config: &Config, key: &Key, runc: &runc::Options) -> Result<(), Error> {
        let directory = Directory::of(config, key);
        let (runc, pid) = match directory.load(key) {
            Ok(record) => (record.runc, record.pid),
            Err(_) => (runc.clone(), 0),
        };
        remove(config, &directory, key, &runc, pid, true)
    }
}

fn remove(
    config: &Config,
    directory: &Directory,
    key: &Key,
    options: &runc::Options,
    pid: i32,
    force: bool,
) -> Result<(), Error> {
    let runc = Runc::new(options.clone(), directory.file("runc.log"), config.limits.runc());
    if let Ok(cgroup) = ApplicationCgroup::of(pid) {
        if force {
            // Frozen processes would outlive their init's death.
            let _ = cgroup.kill_all(config.limits.freeze());
        }
        // runc removes the rest; a cgroup in use tells itself there.
        let _ = cgroup.remove();
    }
    let arguments: &[&str] = if force { &["delete", "--force", key.id()] } else { &["delete", key.id()] };
    match runc.run(arguments) {
        Err(e) if e.kind() != crate::Kind::NotFound => return Err(e.into()),
        _ => {}
    }
    directory.remove()
}
