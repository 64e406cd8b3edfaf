//! Where a path of a tree leads, as a host sees it that has the tree as its root: no link and no `..` leads out.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

/// Links that a path may lead over: as many as the kernel follows.
const LINKS: usize = 40;

/// What `path` is below `root`. No link is left on the way there, so the kernel, which would follow it from its own
/// root, has none to follow. It holds as long as nobody else puts links into the tree meanwhile.
pub(crate) fn resolve(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut inside = PathBuf::new();
    let mut ahead = path.to_owned();
    let mut links = 0;
    loop {
        let mut parts = ahead.components();
        let Some(part) = parts.next() else { return Ok(root.join(inside)) };
        let rest = parts.as_path().to_owned();
        ahead = match part {
            Component::Normal(name) => match link(&root.join(&inside).join(name))? {
                Some(_) if links == LINKS => return Err(Errno::ELOOP.into()),
                Some(target) => {
                    links += 1;
                    target.join(rest)
                }
                None => {
                    inside.push(name);
                    rest
                }
            },
            Component::ParentDir => {
                inside.pop();
                rest
            }
            Component::RootDir => {
                inside.clear();
                rest
            }
            Component::CurDir | Component::Prefix(_) => rest,
        };
    }
}

/// The target of a symbolic link; nothing for anything else, and where there is nothing.
fn link(path: &Path) -> io::Result<Option<PathBuf>> {
    match fs::read_link(path) {
        Ok(target) => Ok(Some(target)),
        Err(e) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&e.kind()) => Ok(None),
        // That is no link.
        Err(e) if e.raw_os_error() == Some(Errno::EINVAL as i32) => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_and_dots_stay_below_the_root() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("usr/etc")).unwrap();
        for (target, link) in [
            ("usr/etc", "etc"),
            ("/opt/docker", "usr/etc/docker"),
            ("../../../../../../../../opt", "usr/etc/up"),
            ("/etc/docker/../b", "usr/etc/chain"),
        ] {
            symlink(target, at(link)).unwrap();
        }
        for (path, real) in [
            ("/", ""),
            ("/etc/x", "usr/etc/x"),
            ("etc/./x", "usr/etc/x"),
            ("/etc/docker/daemon.json", "opt/docker/daemon.json"),
            ("/etc/up/x", "opt/x"),
            ("/etc/chain", "opt/b"),
            ("/../../x", "x"),
            ("/etc/../x", "usr/x"),
        ] {
            assert_eq!(resolve(root.path(), Path::new(path)).unwrap(), at(real), "{path}");
        }
    }

    #[test]
    fn a_ring_of_links_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        symlink("/b", root.path().join("a")).unwrap();
        symlink("/a", root.path().join("b")).unwrap();
        let error = resolve(root.path(), Path::new("/a/x")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::ELOOP as i32));
    }
}
