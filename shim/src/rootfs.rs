//! A bundle's root file system, mounted from what containerd sent with the request.

use std::path::{Path, PathBuf};

use containerd_shim::mount::{mount_rootfs, umount_recursive};
use containerd_shim::protos::types::mount::Mount;

use crate::error::Error;
use crate::idmap;

/// Where it is mounted; nothing when the image is used in place.
#[derive(Debug, Default)]
pub(crate) struct Rootfs(Option<PathBuf>);

impl Rootfs {
    /// Mounts all of `mounts`, or none.
    pub(crate) async fn mount(bundle: &Path, mounts: Vec<Mount>) -> Result<Self, Error> {
        if mounts.is_empty() {
            return Ok(Self::default());
        }
        let target = bundle.join("rootfs");
        let rootfs = Self(Some(target.clone()));
        if let Err(error) = own_thread(move || mount_all(&target, &mounts)).await {
            rootfs.unmount().await;
            return Err(error);
        }
        Ok(rootfs)
    }

    /// Unmounts it, as far as that goes; what is left is logged.
    pub(crate) async fn unmount(&self) {
        let Some(target) = self.0.clone() else { return };
        let name = target.clone();
        if let Err(error) = own_thread(move || unmount(&target)).await {
            log::warn!("failed to clean up rootfs mount {name:?}: {}", error.report());
        }
    }
}

/// Unmounts everything at and below `target`.
pub(crate) fn unmount(target: &Path) -> Result<(), Error> {
    umount_recursive(target.to_str(), 0).map_err(Error::Mount)
}

fn mount_all(target: &Path, mounts: &[Mount]) -> Result<(), Error> {
    if let Err(e) = std::fs::create_dir(target) {
        if e.kind() != std::io::ErrorKind::AlreadyExists {
            return Err(Error::io("create", target, e));
        }
    }
    for mount in mounts {
        let below = mount.target.trim_start_matches('/');
        let target = if below.is_empty() { target.to_path_buf() } else { target.join(below) };
        // The mapped layers are reached by their own path until the overlay stands on them.
        let (options, _layers) = idmap::map_layers(mount, &target)?;
        let some = |text: &'_ str| (!text.is_empty()).then(|| text.to_owned());
        let (kind, source) = (some(&mount.type_), some(&mount.source));
        mount_rootfs(kind.as_deref(), source.as_deref(), &options, target).map_err(Error::Mount)?;
    }
    Ok(())
}

/// A thread that ends with the work: to mount many layers its working directory is changed.
async fn own_thread(work: impl FnOnce() -> Result<(), Error> + Send + 'static) -> Result<(), Error> {
    tokio::task::spawn_blocking(move || {
        let thread = std::thread::spawn(work);
        thread.join().unwrap_or_else(|_| {
            let broke = containerd_shim::Error::Other("the mounting thread broke off".into());
            Err(Error::Mount(broke))
        })
    })
    .await?
}
