//! Where the kernel writes into memory by itself: each thread's area for restartable sequences (`rseq`).
//!
//! It says there, whenever the thread goes on, which processor it is on. In most programs that lies by the thread's stack; in static
//! ones of the GNU C library that of the first thread is at the beginning of the heap.

use std::io;
use std::path::Path;

use crate::message::{fields, messages, number_of, Content, Field};

/// Fields of `core_entry`, `thread_core_entry` and `rseq_entry`.
const THREAD: u64 = 5;
const RSEQ: u64 = 15;
const POINTER: u64 = 1;
const SIZE: u64 = 2;

/// Addresses of all of them in the images in `directory`, from the first byte of each to before the end. Whose they are is not
/// told.
///
/// # Errors
/// When an image cannot be read, or is damaged.
pub fn rseq_areas(directory: &Path) -> io::Result<Vec<(u64, u64)>> {
    let mut areas = Vec::new();
    for file in std::fs::read_dir(directory)? {
        let file = file?;
        let name = file.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("core-")) {
            let image = std::fs::read(file.path())?;
            areas.extend(area(&image).ok_or(io::ErrorKind::InvalidData)?);
        }
    }
    Ok(areas)
}

/// That of one thread, which need not have one.
fn area(core: &[u8]) -> Option<Option<(u64, u64)>> {
    let core = *messages(core)?.first()?;
    let Some(thread) = part(core, THREAD)? else { return Some(None) };
    let Some(rseq) = part(thread, RSEQ)? else { return Some(None) };
    let fields = fields(rseq)?;
    let pointer = number_of(&fields, POINTER)?;
    let end = pointer.checked_add(number_of(&fields, SIZE)?)?;
    Some((pointer != 0).then_some((pointer, end)))
}

/// The message that is a field of another.
fn part(message: &[u8], number: u64) -> Option<Option<&[u8]>> {
    let is_part = |field: &Field| field.number == number;
    let range = fields(message)?.into_iter().rfind(is_part).map(|field| field.content);
    Some(match range {
        Some(Content::Bytes(range)) => Some(message.get(range)?),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{put_number, HEADER};

    fn bytes(number: u64, content: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        put_number(&mut message, number << 3 | 2);
        put_number(&mut message, content.len() as u64);
        [message, content.to_vec()].concat()
    }

    fn numbers(all: &[(u64, u64)]) -> Vec<u8> {
        let mut message = Vec::new();
        for (number, value) in all {
            put_number(&mut message, number << 3);
            put_number(&mut message, *value);
        }
        message
    }

    fn image(message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap().to_le_bytes();
        [&[0; HEADER][..], &length, message].concat()
    }

    #[test]
    fn an_area_is_found_in_the_image_of_a_thread() {
        let rseq = numbers(&[(1, 0x3b01_7940), (2, 32), (3, 0x5305_3053)]);
        let thread = [numbers(&[(3, 0)]), bytes(13, b"name"), bytes(RSEQ, &rseq)].concat();
        let core = [numbers(&[(1, 1)]), bytes(THREAD, &thread)].concat();
        assert_eq!(area(&image(&core)), Some(Some((0x3b01_7940, 0x3b01_7960))));
        assert_eq!(area(&image(&bytes(THREAD, &numbers(&[(3, 0)])))), Some(None), "has none");
        assert_eq!(area(&image(&core)[..20]), None, "is cut short");
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("core-1001.img"), image(&core)).unwrap();
        std::fs::write(directory.path().join("mm-1001.img"), b"").unwrap();
        assert_eq!(rseq_areas(directory.path()).unwrap(), [(0x3b01_7940, 0x3b01_7960)]);
    }
}
