//! Layers with mapped owners: in a pod with a user namespace the files of an image belong to the pod's own numbers.
//!
//! containerd asks for it by `uidmap=` and `gidmap=` among the options of an overlay. The layers below are then taken
//! through a mount of the directory that holds them all, which has that mapping; the overlay keeps it when the path to it
//! is gone.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use containerd_shim::protos::types::mount::Mount;
use nix::mount::{umount2, MntFlags};

use crate::error::Error;
use crate::sys;

const LOWER: &str = "lowerdir=";
const UIDS: &str = "uidmap=";
const GIDS: &str = "gidmap=";

/// The path to mapped layers, taken away on drop.
#[derive(Debug)]
pub(crate) struct Layers {
    place: PathBuf,
}

impl Drop for Layers {
    fn drop(&mut self) {
        let detached = umount2(&self.place, MntFlags::MNT_DETACH).map_err(std::io::Error::from);
        if let Err(e) = detached.and_then(|()| fs::remove_dir(&self.place)) {
            log::warn!("mapped layers stay at {:?}: {e}", self.place);
        }
    }
}

/// The options to mount with on `target`: as they are, or with layers whose owners are mapped if they ask for it.
pub(crate) fn map_layers(mount: &Mount, target: &Path) -> Result<(Vec<String>, Option<Layers>), Error> {
    let options = mount.options.clone();
    let value = |key: &str| options.iter().find_map(|option| option.strip_prefix(key));
    let (Some(uids), Some(gids)) = (value(UIDS), value(GIDS)) else { return Ok((options, None)) };
    let Some(lower) = value(LOWER).filter(|_| mount.type_ == "overlay") else {
        let reason = format!("owners can be mapped in an overlay only, not in {:?}", mount.type_);
        return Err(Error::Invalid { what: "mount", reason });
    };
    let paths: Vec<&Path> = lower.split(':').map(Path::new).collect();
    let parent = common_parent(&paths)?;
    let namespace = user_namespace(uids, gids)?;
    let layers = attach(&parent, &namespace, target.with_extension("layers"))?;
    let moved = |path: &&Path| layers.place.join(path.strip_prefix(&parent).unwrap_or(path));
    let lower: Vec<String> = paths.iter().map(|path| moved(path).to_string_lossy().into_owned()).collect();
    let others =
        options.iter().filter(|option| ![LOWER, UIDS, GIDS].iter().any(|key| option.starts_with(key)));
    let options = others.cloned().chain([format!("{LOWER}{}", lower.join(":"))]).collect();
    Ok((options, Some(layers)))
}

fn attach(parent: &Path, namespace: &OwnedFd, place: PathBuf) -> Result<Layers, Error> {
    let mount = sys::clone_mount(parent).map_err(|e| Error::io("open the layers in", parent, e))?;
    sys::map_owners(mount.as_fd(), namespace.as_fd())
        .map_err(|e| Error::io("map the owners in", parent, e))?;
    fs::create_dir(&place).map_err(|e| Error::io("create", &place, e))?;
    if let Err(e) = sys::attach_mount(mount.as_fd(), &place) {
        // It is empty.
        let _ = fs::remove_dir(&place);
        return Err(Error::io("mount the layers at", place, e));
    }
    Ok(Layers { place })
}

/// The directory that holds all layers.
fn common_parent(layers: &[&Path]) -> Result<PathBuf, Error> {
    let mut parents = layers.iter().map(|layer| layer.parent().unwrap_or(layer).to_path_buf());
    let first = parents.next().unwrap_or_default();
    let common = parents.fold(first, |common, parent| {
        let shared = common.components().zip(parent.components()).take_while(|(a, b)| a == b);
        shared.map(|(component, _)| component).collect()
    });
    if common.parent().is_none() {
        let reason = format!("no directory holds all of {layers:?}");
        return Err(Error::Invalid { what: "layers", reason });
    }
    Ok(common)
}

/// A user namespace with these mappings; it lives as long as the descriptor.
fn user_namespace(uids: &str, gids: &str) -> Result<OwnedFd, Error> {
    // Somebody has to be in it until it is opened.
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = sys::in_user_namespace(&mut command).spawn();
    let mut child = child.map_err(|e| Error::io("start in a user namespace", "cat", e))?;
    let namespace = mapped_namespace(&child, uids, gids);
    drop(child.stdin.take());
    // It ends with its input, whatever its status.
    let _ = child.wait();
    namespace
}

fn mapped_namespace(child: &Child, uids: &str, gids: &str) -> Result<OwnedFd, Error> {
    let process = PathBuf::from(format!("/proc/{}", child.id()));
    for (file, mappings) in [("uid_map", uids), ("gid_map", gids)] {
        let path = process.join(file);
        fs::write(&path, table(mappings)).map_err(|e| Error::io("write", &path, e))?;
    }
    let path = process.join("ns/user");
    File::open(&path).map(OwnedFd::from).map_err(|e| Error::io("open", path, e))
}

/// `0:1000:10,10:5000:1` as the kernel reads it: a line for each mapping, its three numbers apart.
fn table(mappings: &str) -> String {
    mappings.split(',').map(|mapping| mapping.replace(':', " ") + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, options: &[&str]) -> Mount {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Mount { type_: kind.into(), options, ..Mount::default() }
    }

    #[test]
    fn without_mappings_nothing_changes() {
        let plain = mount("overlay", &["lowerdir=/a/1/fs", "upperdir=/a/2/fs"]);
        let (options, layers) = map_layers(&plain, Path::new("/nowhere")).unwrap();
        assert_eq!(options, plain.options);
        assert!(layers.is_none());
    }

    #[test]
    fn mappings_of_anything_but_an_overlay_are_refused() {
        for mount in [
            mount("bind", &["uidmap=0:1:1", "gidmap=0:1:1"]),
            mount("overlay", &["uidmap=0:1:1", "gidmap=0:1:1"]),
        ] {
            assert!(matches!(map_layers(&mount, Path::new("/nowhere")), Err(Error::Invalid { .. })));
        }
    }

    #[test]
    fn layers_have_a_parent_in_common_or_are_refused() {
        let parent = |paths: &[&str]| common_parent(&paths.iter().map(Path::new).collect::<Vec<_>>());
        assert_eq!(parent(&["/s/12/fs"]).unwrap(), Path::new("/s/12"));
        assert_eq!(parent(&["/s/12/fs", "/s/1/fs"]).unwrap(), Path::new("/s"));
        assert!(parent(&["/s/1", "/t/1"]).is_err());
        assert!(parent(&["fs"]).is_err());
    }

    #[test]
    fn mappings_become_lines() {
        assert_eq!(table("0:1000:10,10:5000:1"), "0 1000 10\n10 5000 1\n");
    }
}
