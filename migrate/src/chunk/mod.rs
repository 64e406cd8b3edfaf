//! A piece of an image on its way: pages of zeros left out, the rest compressed.
//!
//! | file | what it does |
//! |---|---|
//! | `zero` | which pages are zeros |
//! | `codec` | compression, and back within known sizes |
//! | `choose` | which compression is fastest now |
//!
//! Its form, integers little-endian: raw bytes (u32), compression (u8), bytes of the map (u16), the map (a bit for each page,
//! set when it is zeros; not there when none is), the other pages, compressed together.

mod choose;
mod codec;
mod zero;

pub(crate) use choose::{Chooser, Times};
pub(crate) use codec::Codec;

use crate::wire::WireError;

/// The most raw bytes of a chunk.
pub(crate) const CHUNK: usize = 1 << 20;
/// The same, as images count.
pub(crate) const CHUNK_BYTES: u64 = CHUNK as u64;

const HEAD: usize = 7;

/// What became of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packed {
    /// Compressed bytes go in as this many.
    pub(crate) compressed: usize,
    /// Bytes of zero pages.
    pub(crate) zero: usize,
    /// How it is compressed in the end: not at all when that is as short.
    pub(crate) codec: Codec,
}

/// Packs up to [`CHUNK`] bytes into `out`, which is emptied before.
pub(crate) fn pack(raw: &[u8], codec: Codec, out: &mut Vec<u8>) -> std::io::Result<Packed> {
    if raw.len() > CHUNK {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "a chunk is too large"));
    }
    let found = zero::find(raw);
    let kept = zero::without(raw, &found);
    out.clear();
    out.extend_from_slice(&u32::try_from(raw.len()).unwrap_or_default().to_le_bytes());
    out.push(0);
    out.extend_from_slice(&u16::try_from(found.map.len()).unwrap_or_default().to_le_bytes());
    out.extend_from_slice(&found.map);
    let codec = if kept.is_empty() { Codec::None } else { codec };
    let used = codec::compress(&kept, codec, out)?;
    out[4] = used as u8;
    Ok(Packed { compressed: kept.len(), zero: found.bytes, codec: used })
}

/// Unpacks a chunk; hostile ones as well.
///
/// # Errors
/// When it is none.
pub(crate) fn unpack(packed: &[u8]) -> Result<Vec<u8>, WireError> {
    let malformed = |what: &str| WireError::Malformed(format!("a chunk {what}"));
    let (head, rest) = packed.split_first_chunk::<HEAD>().ok_or_else(|| malformed("without its head"))?;
    let raw = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    if raw > CHUNK {
        return Err(WireError::Oversized { what: "a chunk", size: raw as u64, most: CHUNK_BYTES });
    }
    let codec = Codec::from_byte(head[4]).ok_or_else(|| malformed("of an unknown compression"))?;
    let map_length = usize::from(u16::from_le_bytes([head[5], head[6]]));
    if map_length != 0 && map_length != zero::map_length(raw) {
        return Err(malformed("whose map does not fit"));
    }
    let (map, body) = rest.split_at_checked(map_length).ok_or_else(|| malformed("with half a map"))?;
    let kept = zero::kept(raw, map);
    let content = codec::decompress(body, codec, kept).map_err(|error| malformed(&error.to_string()))?;
    Ok(zero::with(raw, map, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixed() -> Vec<u8> {
        let mut raw = vec![0; CHUNK - 100];
        for (index, byte) in raw.iter_mut().enumerate() {
            if index / zero::PAGE % 3 == 1 {
                *byte = u8::try_from(index * index / 7 % 251).unwrap();
            }
        }
        raw
    }

    #[test]
    fn comes_out_as_it_went_in() {
        for raw in [Vec::new(), vec![0; 1], vec![0; CHUNK], vec![5; 4097], mixed()] {
            for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
                let mut out = vec![1, 2, 3];
                pack(&raw, codec, &mut out).unwrap();
                assert_eq!(unpack(&out).unwrap(), raw, "{codec:?}");
            }
        }
    }

    #[test]
    fn zeros_do_not_travel() {
        let mut out = Vec::new();
        let packed = pack(&vec![0; CHUNK], Codec::Lz4, &mut out).unwrap();
        assert_eq!((packed.zero, out.len()), (CHUNK, HEAD + CHUNK / zero::PAGE / 8));
    }

    #[test]
    fn what_does_not_become_smaller_travels_as_it_is() {
        let mut state = 1_u64;
        let random = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let raw: Vec<u8> = (0..CHUNK).map(random).collect();
        let mut out = Vec::new();
        assert_eq!(pack(&raw, Codec::Lz4, &mut out).unwrap().codec, Codec::None);
        assert_eq!(out.len(), HEAD + CHUNK);
    }

    #[test]
    fn a_damaged_one_is_refused() {
        let mut out = Vec::new();
        pack(&mixed(), Codec::Lz4, &mut out).unwrap();
        assert!(unpack(&out[..out.len() - 1]).is_err());
        assert!(unpack(&[&out[..], &[0]].concat()).is_err());
        for (at, value) in [(3, 1), (4, 9), (5, 1)] {
            let mut wrong = out.clone();
            wrong[at] = value;
            assert!(unpack(&wrong).is_err(), "byte {at}");
        }
    }
}
