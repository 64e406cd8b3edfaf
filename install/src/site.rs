//! The tree that an installation happens in: a host's own, or another below a directory. Paths are named as that
//! host sees them; files are replaced in one step, and keep their owner and mode.

use std::fs::{self, File, FileTimes, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{fchown, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::resolve::resolve;
use crate::Error;

/// A host's tree of files.
#[derive(Debug, Clone)]
pub struct Site {
    root: PathBuf,
}

/// What a file is beside its content.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes {
    mode: u32,
    owner: Option<(u32, u32)>,
    times: Option<FileTimes>,
}

impl Attributes {
    /// A new file of this mode, which belongs to its maker.
    pub(crate) fn new(mode: u32) -> Self {
        Self { mode, owner: None, times: None }
    }

    /// Those of a file that is there; not its time, for its content is about to change.
    pub(crate) fn of(metadata: &fs::Metadata) -> Self {
        let owner = Some((metadata.uid(), metadata.gid()));
        Self { mode: metadata.mode() & 0o7777, owner, times: None }
    }

    /// Those of a file of which this will be an exact copy.
    pub(crate) fn exactly_of(metadata: &fs::Metadata) -> Self {
        let times = metadata.modified().ok().map(|time| FileTimes::new().set_modified(time));
        Self { times, ..Self::of(metadata) }
    }

    fn give(&self, file: &File) -> io::Result<()> {
        if let Some((uid, gid)) = self.owner {
            fchown(file, Some(uid), Some(gid))?;
        }
        file.set_permissions(Permissions::from_mode(self.mode))?;
        self.times.map_or(Ok(()), |times| file.set_times(times))
    }
}

impl Site {
    /// The tree below `root`, `/` for the host itself.
    ///
    /// # Errors
    /// When nothing is there: a tree of a mistyped name is not made.
    pub fn new(root: &Path) -> Result<Self, Error> {
        let root = root.canonicalize().map_err(Error::io("find the tree", root))?;
        Ok(Self { root })
    }

    /// Whether it is the host that this program runs on.
    #[must_use]
    pub fn is_this_host(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where `path` really is: always below the root, and itself no link.
    pub(crate) fn real(&self, path: &Path) -> io::Result<PathBuf> {
        resolve(&self.root, path)
    }

    /// Whether a file is there.
    pub(crate) fn has_file(&self, path: &Path) -> bool {
        self.real(path).is_ok_and(|real| real.is_file())
    }

    /// Whether one of these programs is there.
    #[must_use]
    pub fn has_program(&self, name: &str) -> bool {
        self.program(name).is_some()
    }

    /// The program of this name, in the directories of a service's PATH, as the host names it.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        let dirs = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
        dirs.iter().map(|dir| Path::new(dir).join(name)).find(|path| self.has_file(path))
    }

    /// The content of a file; nothing when there is none.
    pub(crate) fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, Error> {
        match self.real(path).and_then(|real| read_file(&real)) {
            Ok(content) => Ok(Some(content)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::io("read", path)(source)),
        }
    }

    /// As [`Site::read`], for a file that must be text.
    pub(crate) fn read_text(&self, path: &Path) -> Result<Option<String>, Error> {
        let Some(content) = self.read(path)? else { return Ok(None) };
        let wrong = |e: std::string::FromUtf8Error| {
            let good = e.utf8_error().valid_up_to();
            let line = e.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count() + 1;
            Error::Syntax { path: path.to_owned(), line, cause: "it is not UTF-8".into() }
        };
        String::from_utf8(content).map(Some).map_err(wrong)
    }

    /// Where the next content of a file is prepared.
    pub(crate) fn staged(&self, path: &Path) -> io::Result<PathBuf> {
        let real = self.real(path)?;
        let name = real.file_name().unwrap_or_default().to_string_lossy();
        Ok(real.with_file_name(format!(".{name}.fastmig-new")))
    }

    /// Writes the next content of `path` beside it.
    pub(crate) fn stage(
        &self,
        path: &Path,
        content: &[u8],
        attributes: Attributes,
    ) -> Result<PathBuf, Error> {
        let write = || {
            let staged = self.staged(path)?;
            // A killed run's, or a link: it is not written through.
            remove_file(&staged)?;
            // Nobody else reads what may hold secrets, before it has its mode.
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&staged)?;
            file.write_all(content)?;
            attributes.give(&file)?;
            file.sync_all()?;
            Ok(staged)
        };
        write().map_err(Error::io("write", path))
    }

    /// Puts what was staged into its place.
    pub(crate) fn commit(&self, path: &Path) -> Result<(), Error> {
        let rename = || fs::rename(self.staged(path)?, self.real(path)?);
        rename().map_err(Error::io("replace", path))
    }

    /// Writes a file that is either the old one or the new one, never half of it.
    pub(crate) fn replace(&self, path: &Path, content: &[u8], attributes: Attributes) -> Result<(), Error> {
        self.stage(path, content, attributes)?;
        self.commit(path)
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), Error> {
        self.real(path).and_then(|real| remove_file(&real)).map_err(Error::io("remove", path))
    }

    /// Removes what a killed run had staged.
    pub(crate) fn unstage(&self, path: &Path) -> Result<(), Error> {
        self.staged(path).and_then(|staged| remove_file(&staged)).map_err(Error::io("remove", path))
    }

    /// Removes a directory, if it is there and empty; answers whether it is gone.
    pub(crate) fn remove_directory(&self, path: &Path) -> Result<bool, Error> {
        match gone(self.real(path).and_then(fs::remove_dir)) {
            Ok(()) => Ok(true),
            // A mount point is as little ours as a directory with something in it.
            Err(e) if [io::ErrorKind::DirectoryNotEmpty, io::ErrorKind::ResourceBusy].contains(&e.kind()) => {
                Ok(false)
            }
            Err(source) => Err(Error::io("remove", path)(source)),
        }
    }

    /// Makes a directory that everybody may look into, unless it is there.
    pub(crate) fn make_directory(&self, path: &Path) -> Result<(), Error> {
        self.make_directory_of(path, 0o755)
    }

    /// Makes a directory of this mode, unless it is there.
    pub(crate) fn make_directory_of(&self, path: &Path, mode: u32) -> Result<(), Error> {
        let real = self.real(path).map_err(Error::io("make", path))?;
        let made =
            fs::create_dir(&real).and_then(|()| fs::set_permissions(&real, Permissions::from_mode(mode)));
        match made {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && real.is_dir() => Ok(()),
            made => made.map_err(Error::io("make", path)),
        }
    }

    /// The directories above `path` that are not there, the topmost first.
    pub(crate) fn missing_parents(&self, path: &Path) -> Vec<PathBuf> {
        let is_there = |dir: &Path| self.real(dir).is_ok_and(|real| real.is_dir());
        let parents = path.ancestors().skip(1);
        let mut missing: Vec<PathBuf> =
            parents.take_while(|dir| !is_there(dir)).map(Path::to_owned).collect();
        missing.reverse();
        missing
    }

    pub(crate) fn metadata(&self, path: &Path) -> Result<Option<fs::Metadata>, Error> {
        match self.real(path).and_then(fs::metadata) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::io("look at", path)(source)),
        }
    }
}

/// A device or a pipe is nobody's configuration, and would be replaced by a file.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    match fs::metadata(path)?.is_file() {
        true => fs::read(path),
        false => Err(io::Error::other("it is not a regular file; remove it and try again")),
    }
}

/// A read-only file system refuses to remove even what is not there.
fn remove_file(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => gone(fs::remove_file(path)),
    }
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_is_followed_within_the_tree() {
        let root = tempfile::tempdir().unwrap();
        let site = Site::new(root.path()).unwrap();
        fs::create_dir_all(root.path().join("etc/real")).unwrap();
        symlink("/etc/real/config", root.path().join("etc/absolute")).unwrap();
        symlink("real/config", root.path().join("etc/relative")).unwrap();
        for link in ["/etc/absolute", "/etc/relative"] {
            site.replace(Path::new(link), link.as_bytes(), Attributes::new(0o640)).unwrap();
            let written = root.path().join("etc/real/config");
            assert_eq!(fs::read_to_string(&written).unwrap(), link);
            assert_eq!(fs::metadata(&written).unwrap().mode() & 0o777, 0o640);
        }
        assert!(root.path().join("etc/absolute").is_symlink());
    }

    #[test]
    fn no_link_leads_out_of_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("victim"), "the host's").unwrap();
        let up = Path::new("../".repeat(32).as_str()).join(outside.strip_prefix("/").unwrap());
        symlink(&outside, root.join("etc/absolute")).unwrap();
        symlink(up, root.join("etc/relative")).unwrap();
        symlink(outside.join("victim"), root.join("etc/.staged.fastmig-new")).unwrap();
        let site = Site::new(&root).unwrap();
        // Where both links lead in the tree.
        fs::create_dir_all(root.join(outside.strip_prefix("/").unwrap())).unwrap();
        for dir in ["/etc/absolute", "/etc/relative", "/etc/../../etc/absolute"] {
            let (file, below) = (Path::new(dir).join("victim"), Path::new(dir).join("directory"));
            assert_eq!(site.read(&file).unwrap(), None, "{dir}");
            site.replace(&file, b"the tree's", Attributes::new(0o644)).unwrap();
            assert_eq!(site.read(&file).unwrap().unwrap(), b"the tree's");
            site.make_directory(&below).unwrap();
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "{dir}");
            site.remove(&file).unwrap();
            assert!(site.remove_directory(&below).unwrap());
        }
        site.replace(Path::new("/etc/staged"), b"the tree's", Attributes::new(0o644)).unwrap();
        assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "the host's");
    }

    #[test]
    fn what_is_no_regular_file_is_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        let pipe = root.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        symlink("pipe", root.path().join("config")).unwrap();
        // Whoever opens it is not kept waiting.
        std::thread::spawn(move || fs::write(pipe, "text"));
        let error = Site::new(root.path()).unwrap().read(Path::new("/config")).unwrap_err().to_string();
        assert!(error.starts_with("could not read /config: it is not a regular file"), "{error}");
    }

    #[test]
    fn a_tree_is_there_and_known_by_any_name() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/", dir.path().join("host")).unwrap();
        for (name, is_this_host) in [("host", true), ("host/./etc/..", true), (".", false)] {
            let site = Site::new(&dir.path().join(name)).unwrap();
            assert_eq!(site.is_this_host(), is_this_host, "{name}");
        }
        for missing in [Path::new(""), &dir.path().join("typo")] {
            let error = Site::new(missing).unwrap_err().to_string();
            assert!(error.starts_with("could not find the tree"), "{error}");
        }
    }

    #[test]
    fn a_directory_with_something_in_it_stays() {
        let root = tempfile::tempdir().unwrap();
        let site = Site::new(root.path()).unwrap();
        assert_eq!(site.missing_parents(Path::new("/a/b/c")), [Path::new("/a"), Path::new("/a/b")]);
        site.make_directory(Path::new("/a")).unwrap();
        site.make_directory(Path::new("/a/b")).unwrap();
        assert!(!site.remove_directory(Path::new("/a")).unwrap());
        assert!(site.remove_directory(Path::new("/a/b")).unwrap());
        assert!(site.remove_directory(Path::new("/a")).unwrap());
    }

    #[test]
    fn text_that_is_none_is_told_with_its_line() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("f"), b"one\ntwo \xff\n").unwrap();
        let error = Site::new(root.path()).unwrap().read_text(Path::new("/f")).unwrap_err().to_string();
        assert!(error.starts_with("/f, line 2: "), "{error}");
    }
}
