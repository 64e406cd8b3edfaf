//! Pages of zeros, which an application has many of.

pub(super) const PAGE: usize = 4096;

const ZEROS: [u8; PAGE] = [0; PAGE];

/// Which pages of a chunk are zeros.
#[derive(Debug)]
pub(super) struct Found {
    /// A bit for each page; empty when no page is.
    pub(super) map: Vec<u8>,
    /// Bytes in them.
    pub(super) bytes: usize,
}

pub(super) const fn map_length(raw: usize) -> usize {
    raw.div_ceil(PAGE).div_ceil(8)
}

pub(super) fn find(raw: &[u8]) -> Found {
    let mut map = vec![0; map_length(raw.len())];
    let mut bytes = 0;
    for (index, page) in raw.chunks(PAGE).enumerate() {
        if *page == ZEROS[..page.len()] {
            map[index / 8] |= 1 << (index % 8);
            bytes += page.len();
        }
    }
    if bytes == 0 {
        map.clear();
    }
    Found { map, bytes }
}

fn is_set(map: &[u8], index: usize) -> bool {
    map.get(index / 8).is_some_and(|byte| byte & 1 << (index % 8) != 0)
}

/// The pages that are not zeros.
pub(super) fn without<'a>(raw: &'a [u8], found: &Found) -> std::borrow::Cow<'a, [u8]> {
    if found.map.is_empty() {
        return raw.into();
    }
    let mut kept = Vec::with_capacity(raw.len() - found.bytes);
    for (index, page) in raw.chunks(PAGE).enumerate() {
        if !is_set(&found.map, index) {
            kept.extend_from_slice(page);
        }
    }
    kept.into()
}

/// How many bytes the other pages are.
pub(super) fn kept(raw: usize, map: &[u8]) -> usize {
    let pages = (0..raw.div_ceil(PAGE)).filter(|index| !is_set(map, *index));
    pages.map(|index| PAGE.min(raw - index * PAGE)).sum()
}

/// The whole chunk from its other pages, of which there are [`kept`] bytes.
pub(super) fn with(raw: usize, map: &[u8], content: Vec<u8>) -> Vec<u8> {
    if map.is_empty() {
        return content;
    }
    let mut whole = vec![0; raw];
    let mut rest = &content[..];
    for (index, page) in whole.chunks_mut(PAGE).enumerate() {
        if !is_set(map, index) {
            let (here, later) = rest.split_at(page.len());
            page.copy_from_slice(here);
            rest = later;
        }
    }
    whole
}
