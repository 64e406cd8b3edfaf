//! Objects of a directory, read so that whoever may write there leads nobody out of it, nor makes anybody wait: no symbolic
//! links below it, no pipes, no devices. The library that writes them follows links.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{openat2, Mode, OFlags, ResolveFlags, CWD};

/// The object `key`, of at most `largest` bytes; nothing when there is none.
pub(super) fn read(directory: &Path, key: &str, largest: u64) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, directory, flags | OFlags::DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = match openat2(&root, key, flags | OFlags::NONBLOCK, Mode::empty(), resolve) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(rustix::io::Errno::LOOP) => return Err(refused(key, "leads elsewhere by a symbolic link")),
        Err(e) => return Err(e.into()),
    };
    if !file.metadata()?.is_file() {
        return Err(refused(key, "is not a file"));
    }
    let mut content = Vec::new();
    // One byte too many is enough to tell.
    file.take(largest.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > largest {
        return Err(refused(key, &format!("is larger than {largest} bytes")));
    }
    Ok(Some(content))
}

fn refused(key: &str, problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{key} {problem}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_in_a_directory_leads_out_of_it_or_makes_us_wait() {
        let root = tempfile::tempdir().unwrap();
        let (place, outside) = (root.path().join("place"), root.path().join("outside"));
        std::fs::create_dir_all(place.join("web")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("secret"), "secret").unwrap();
        std::fs::write(place.join("web/00000"), "part").unwrap();
        symlink(outside.join("secret"), place.join("web/link")).unwrap();
        symlink(&outside, place.join("elsewhere")).unwrap();
        let pipe = rustix::fs::mkfifoat(CWD, place.join("web/pipe"), Mode::RUSR);
        assert_eq!(read(&place, "web/00000", 4).unwrap().unwrap(), b"part");
        assert_eq!(read(&place, "web/00001", 4).unwrap(), None);
        for (key, word) in [
            ("web/00000", "larger than 3"),
            ("web/link", "symbolic link"),
            ("elsewhere/secret", "symbolic link"),
            ("web", "not a file"),
            ("web/pipe", "not a file"),
        ] {
            let error = read(&place, key, 3).unwrap_err().to_string();
            assert!(error.contains(word) || (key == "web/pipe" && pipe.is_err()), "{key}: {error}");
        }
        assert!(read(&place, "../outside/secret", 9).is_err());
    }
}
