//! What the images must say so that CRIU finds filled memory, and whether they leave out what was hidden.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

use fastmig_criu_view_layout::HUGE;

use crate::message::{fields, messages, number_of, put_number, Content, HEADER};

const PAGE: u64 = 4096;

// mm_entry and vma_entry of CRIU's images
const VMAS: u64 = 14;
const START: u64 = 1;
const END: u64 = 2;
const OFFSET: u64 = 3;
const FLAGS: u64 = 6;
const STATUS: u64 = 7;

// pagemap_entry
const PAGE_FLAGS: u64 = 4;
const LAZY: u64 = 2;
// pstree_entry
const PID: u64 = 1;
const PARENT: u64 = 2;

// The status of a mapping
const REGULAR: u64 = 1;
const FILE_PRIVATE: u64 = 1 << 6;
const ANONYMOUS_PRIVATE: u64 = 1 << 9;
const SHADOW_STACK: u64 = 1 << 15;
const GUARD: u64 = 1 << 16;
const PLUGIN: u64 = 1 << 27;

// Its flags, as of mmap
const GROWS_DOWN: u64 = 0x100;
const HUGETLB: u64 = 0x40000;

struct Mapping {
    start: u64,
    end: u64,
    flags: u64,
    status: u64,
}

impl Mapping {
    fn read(message: &[u8]) -> Option<Self> {
        let fields = fields(message)?;
        let number = |field| number_of(&fields, field);
        Some(Self {
            start: number(START)?,
            end: number(END)?,
            flags: number(FLAGS)?,
            status: number(STATUS)?,
        })
    }

    /// Memory without a file, whose offset means nothing.
    fn is_memory(&self) -> bool {
        let status = self.status & (REGULAR | ANONYMOUS_PRIVATE | SHADOW_STACK | GUARD | PLUGIN);
        status == REGULAR | ANONYMOUS_PRIVATE && self.flags & (GROWS_DOWN | HUGETLB) == 0
    }

    /// How much of CRIU's own place it takes.
    fn place(&self) -> u64 {
        let private = self.status & REGULAR != 0 && self.status & (FILE_PRIVATE | ANONYMOUS_PRIVATE) != 0;
        if !private || self.status & (GUARD | PLUGIN) != 0 || self.flags & HUGETLB != 0 {
            return 0;
        }
        let guard = if self.flags & GROWS_DOWN != 0 { PAGE } else { 0 };
        self.end.saturating_sub(self.start) + guard
    }
}

/// The image `mm-PID.img` with the address of each private anonymous mapping in place of its offset, by which CRIU's request
/// for it is recognized. Nothing when the image is damaged, or when one of the mappings `keys` (start, end) is not there or
/// cannot be keyed.
#[must_use]
pub fn key_mappings(mm: &[u8], keys: &[(u64, u64)]) -> Option<Vec<u8>> {
    let messages = messages(mm)?;
    let [message] = messages.as_slice() else { return None };
    let mut keyed = Vec::new();
    let (mut result, mut copied) = (Vec::new(), 0);
    for field in fields(message)?.into_iter().filter(|field| field.number == VMAS) {
        let Content::Bytes(range) = field.content else { return None };
        let entry = &message[range.clone()];
        let mapping = Mapping::read(entry)?;
        if !mapping.is_memory() {
            continue;
        }
        keyed.push((mapping.start, mapping.end));
        // Of two values of a field the later one counts.
        let mut key = Vec::new();
        put_number(&mut key, OFFSET << 3);
        put_number(&mut key, mapping.start);
        result.extend_from_slice(&message[copied..field.start]);
        put_number(&mut result, VMAS << 3 | 2);
        put_number(&mut result, (entry.len() + key.len()) as u64);
        result.extend_from_slice(entry);
        result.extend(key);
        copied = range.end;
    }
    result.extend_from_slice(&message[copied..]);
    if !keys.iter().all(|key| keyed.contains(key)) {
        return None;
    }
    let mut image = mm.get(..HEADER)?.to_vec();
    image.extend(u32::try_from(result.len()).ok()?.to_le_bytes());
    image.extend(result);
    Some(image)
}

/// Where CRIU's own place for the mappings in the image `mm-PID.img` should lie, modulo 2 MiB, so that the one at address
/// `start`, the largest say, keeps its huge pages while it is moved there and back. Nothing when it is not in the image.
#[must_use]
pub fn place_remainder(mm: &[u8], start: u64) -> Option<u64> {
    let messages = messages(mm)?;
    let [message] = messages.as_slice() else { return None };
    let mut below = 0_u64;
    for field in fields(message)?.into_iter().filter(|field| field.number == VMAS) {
        let Content::Bytes(range) = field.content else { return None };
        let mapping = Mapping::read(&message[range])?;
        if mapping.start == start {
            return Some(start.wrapping_sub(below) % HUGE);
        }
        below = below.wrapping_add(mapping.place());
    }
    None
}

/// Who is whose parent (process, parent), from the image `pstree.img`, for
/// [`RestoreView::relate`](super::RestoreView::relate). Nothing when it is damaged.
#[must_use]
pub fn family(pstree: &[u8]) -> Option<Vec<(i32, i32)>> {
    let relation = |entry: &[u8]| {
        let fields = fields(entry)?;
        let process = |field| i32::try_from(number_of(&fields, field)?).ok();
        Some((process(PID)?, process(PARENT)?))
    };
    messages(pstree)?.into_iter().map(relation).collect()
}

/// Gives the images in `directory` a parent that holds nothing: CRIU then maps all private memory itself before it forks
/// children, instead of having each process map its own at the end.
///
/// # Errors
/// When an image of pages is damaged, or the parent cannot be written.
pub fn parent_directory(directory: &Path) -> io::Result<()> {
    let parent = directory.join("parent");
    fs::create_dir(&parent)?;
    for file in fs::read_dir(directory)? {
        let name = file?.file_name();
        if !is_page_map(&name) {
            continue;
        }
        let image = fs::read(directory.join(&name))?;
        let (end, pages) = head(&image).ok_or(io::ErrorKind::InvalidData)?;
        fs::write(parent.join(&name), &image[..end])?;
        // CRIU looks at what it has opened of it, also when it reads nothing.
        fs::write(parent.join(format!("pages-{pages}.img")), b"")?;
    }
    Ok(())
}

/// Lets a restore whose memory follows take all pages that the images in `directory` hold. CRIU marks most of them as pages that
/// may follow, whether they are there or not.
///
/// # Errors
/// When an image of pages is damaged, or cannot be written.
pub fn take_all_pages(directory: &Path) -> io::Result<()> {
    for file in fs::read_dir(directory)? {
        let file = file?;
        if is_page_map(&file.file_name()) {
            let image = fs::read(file.path())?;
            fs::write(file.path(), present(&image).ok_or(io::ErrorKind::InvalidData)?)?;
        }
    }
    Ok(())
}

/// An image `pagemap-PID.img` none of whose pages may follow; nothing when it is damaged.
fn present(pagemap: &[u8]) -> Option<Vec<u8>> {
    let mut image = pagemap.get(..HEADER)?.to_vec();
    for (index, message) in messages(pagemap)?.into_iter().enumerate() {
        let mut message = message.to_vec();
        // The first says where the pages are.
        let flags = if index == 0 { None } else { number_of(&fields(&message)?, PAGE_FLAGS) };
        if let Some(flags) = flags.filter(|flags| flags & LAZY != 0) {
            // Of two values of a field the later one counts.
            put_number(&mut message, PAGE_FLAGS << 3);
            put_number(&mut message, flags & !LAZY);
        }
        image.extend(u32::try_from(message.len()).ok()?.to_le_bytes());
        image.extend(message);
    }
    Some(image)
}

/// Where the head of an image `pagemap-PID.img` ends, and the number of its image of pages.
fn head(image: &[u8]) -> Option<(usize, u64)> {
    let head = *messages(image)?.first()?;
    let pages = fields(head)?.into_iter().find_map(|field| match field.content {
        Content::Number(number) if field.number == 1 => Some(number),
        _ => None,
    })?;
    Some((HEADER + 4 + head.len(), pages))
}

/// `pagemap-PID.img`, and not that of shared memory.
fn is_page_map(name: &OsStr) -> bool {
    let name = name.to_str().and_then(|name| name.strip_prefix("pagemap-")?.strip_suffix(".img"));
    name.is_some_and(|number| number.parse::<u32>().is_ok())
}

/// Whether an image `pagemap-PID.img` holds no page of the mappings `hidden` (start, end); no when it is damaged.
#[must_use]
pub fn omits(pagemap: &[u8], hidden: &[(u64, u64)]) -> bool {
    let Some(image) = crate::stream::parse_page_map(0, pagemap) else { return false };
    image.ranges.iter().all(|range| {
        let end = range.address.saturating_add(range.length);
        hidden.iter().all(|(from, to)| end <= *from || *to <= range.address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(fields: &[(u64, u64)]) -> Vec<u8> {
        let mut message = Vec::new();
        for (number, value) in fields {
            put_number(&mut message, number << 3);
            put_number(&mut message, *value);
        }
        message
    }

    fn image(messages: &[Vec<u8>]) -> Vec<u8> {
        let mut image = vec![7; HEADER];
        for message in messages {
            image.extend(u32::try_from(message.len()).unwrap().to_le_bytes());
            image.extend(message);
        }
        image
    }

    fn vma(start: u64, end: u64, flags: u64, status: u64) -> Vec<u8> {
        numbers(&[(START, start), (END, end), (OFFSET, 0), (4, 0), (5, 3), (FLAGS, flags), (STATUS, status)])
    }

    fn mm(vmas: &[Vec<u8>]) -> Vec<u8> {
        let mut message = numbers(&[(1, 0x40_0000), (12, 3)]);
        for vma in vmas {
            put_number(&mut message, VMAS << 3 | 2);
            put_number(&mut message, vma.len() as u64);
            message.extend(vma);
        }
        message.extend(numbers(&[(15, 1)]));
        image(&[message])
    }

    const MEMORY: u64 = REGULAR | ANONYMOUS_PRIVATE;

    fn offsets(mm: &[u8]) -> Vec<u64> {
        let message = messages(mm).unwrap()[0];
        let vmas = fields(message).unwrap().into_iter().filter(|field| field.number == VMAS);
        vmas.map(|vma| {
            let Content::Bytes(range) = vma.content else { panic!() };
            number_of(&fields(&message[range]).unwrap(), OFFSET).unwrap()
        })
        .collect()
    }

    #[test]
    fn mappings_of_memory_are_keyed_and_the_rest_stays() {
        let file = vma(0x1000, 0x2000, 2, REGULAR | FILE_PRIVATE);
        let memory = vma(0x5000, 0x9000, 0x22, MEMORY);
        let stack = vma(0xa000, 0xb000, 0x122, MEMORY);
        let before = mm(&[file, memory, stack]);
        let after = key_mappings(&before, &[(0x5000, 0x9000)]).unwrap();
        assert_eq!(offsets(&after), [0, 0x5000, 0]);
        let message = messages(&after).unwrap()[0];
        assert_eq!(number_of(&fields(message).unwrap(), 15), Some(1));
        assert_eq!(after[..HEADER], before[..HEADER]);
        for missing in [(0x5000, 0x8000), (0x1000, 0x2000), (0xa000, 0xb000)] {
            assert!(key_mappings(&before, &[missing]).is_none());
        }
        assert!(key_mappings(&before[..before.len() - 1], &[]).is_none());
    }

    #[test]
    fn the_place_is_congruent_with_a_mapping_behind_others() {
        let file = vma(0x1000, 0x4000, 2, REGULAR | FILE_PRIVATE);
        let shared = vma(0x4000, 0x5000, 1, REGULAR | 1 << 8);
        let memory = vma(0x20_5000, 0x90_0000, 0x22, MEMORY);
        let mm = mm(&[file, shared, memory]);
        assert_eq!(place_remainder(&mm, 0x20_5000), Some(0x2000));
        assert_eq!(place_remainder(&mm, 0x20_6000), None);
    }

    #[test]
    fn no_page_may_follow_that_is_there() {
        let head = numbers(&[(1, 1)]);
        let pages = |flags| numbers(&[(1, 0x1000), (2, 2), (PAGE_FLAGS, flags)]);
        let told = |image: &[u8]| -> Vec<_> {
            let all = messages(image).unwrap();
            all[1..].iter().map(|message| number_of(&fields(message).unwrap(), PAGE_FLAGS).unwrap()).collect()
        };
        let before = image(&[head, pages(4), pages(6), pages(2)]);
        let after = present(&before).unwrap();
        assert_eq!(told(&after), [4, 4, 0]);
        assert_eq!(messages(&after).unwrap()[..2], messages(&before).unwrap()[..2]);
        assert_eq!(present(&before[..before.len() - 1]), None);
    }

    #[test]
    fn a_family_is_read() {
        let pstree =
            image(&[numbers(&[(1, 7), (2, 0), (3, 7)]), numbers(&[(1, 9), (2, 7), (5, 9), (5, 10)])]);
        assert_eq!(family(&pstree).unwrap(), [(7, 0), (9, 7)]);
        assert!(family(&pstree[..pstree.len() - 1]).is_none());
    }

    #[test]
    fn a_page_of_a_hidden_mapping_is_found() {
        let pages = |address, count| numbers(&[(1, address), (2, count), (4, 4)]);
        let pagemap = image(&[numbers(&[(1, 1)]), pages(0x1000, 2), pages(0x8000, 1)]);
        assert!(omits(&pagemap, &[(0x3000, 0x8000), (0x9000, 0xa000)]));
        assert!(!omits(&pagemap, &[(0x2000, 0x3000)]));
        assert!(!omits(&pagemap[..pagemap.len() - 1], &[]));
    }

    #[test]
    fn a_parent_has_heads_of_page_maps_and_no_pages() {
        let directory = tempfile::tempdir().unwrap();
        let head = numbers(&[(1, 1)]);
        let pages = numbers(&[(1, 0x1000), (2, 2), (4, 4)]);
        for name in ["pagemap-12.img", "pagemap-shmem-5.img", "pages-1.img"] {
            fs::write(directory.path().join(name), image(&[head.clone(), pages.clone()])).unwrap();
        }
        parent_directory(directory.path()).unwrap();
        let parent = directory.path().join("parent");
        let mut files: Vec<_> = fs::read_dir(&parent).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        assert_eq!(files, ["pagemap-12.img", "pages-1.img"].map(|name| parent.join(name)));
        assert_eq!(fs::read(&files[0]).unwrap(), image(&[head]));
        assert!(fs::read(&files[1]).unwrap().is_empty());
    }
}
