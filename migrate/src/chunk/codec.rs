//! Compression, and back into exactly as many bytes as were announced.

use std::cell::RefCell;
use std::io;

/// How a chunk is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    None = 0,
    Lz4 = 1,
    Zstd = 2,
}

/// The fastest of zstd's usual levels: memory must keep up with the link.
const LEVEL: i32 = 1;

thread_local! {
    /// A compressor's tables cost more than a chunk.
    static ZSTD: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
}

impl Codec {
    pub(super) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::None),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Appends `raw`, compressed if that makes it shorter; says how.
pub(super) fn compress(raw: &[u8], codec: Codec, out: &mut Vec<u8>) -> io::Result<Codec> {
    let compressed = match codec {
        Codec::None => None,
        Codec::Lz4 => Some(lz4_flex::block::compress(raw)),
        Codec::Zstd => Some(compress_zstd(raw)?),
    };
    match compressed {
        Some(compressed) if compressed.len() < raw.len() => {
            out.extend_from_slice(&compressed);
            Ok(codec)
        }
        _ => {
            out.extend_from_slice(raw);
            Ok(Codec::None)
        }
    }
}

fn compress_zstd(raw: &[u8]) -> io::Result<Vec<u8>> {
    ZSTD.with_borrow_mut(|compressor| match compressor {
        Some(compressor) => compressor.compress(raw),
        None => compressor.insert(zstd::bulk::Compressor::new(LEVEL)?).compress(raw),
    })
}

/// Back into exactly `size` bytes.
pub(super) fn decompress(body: &[u8], codec: Codec, size: usize) -> io::Result<Vec<u8>> {
    let content = match codec {
        Codec::None => body.to_vec(),
        Codec::Lz4 => {
            let mut content = vec![0; size];
            let written = lz4_flex::block::decompress_into(body, &mut content).map_err(io::Error::other)?;
            content.truncate(written);
            content
        }
        Codec::Zstd => zstd::bulk::decompress(body, size)?,
    };
    if content.len() != size {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "of the wrong size"));
    }
    Ok(content)
}
