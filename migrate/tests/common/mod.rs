//! Two hosts within this process: an application that is memory and files, and a network that can be cut or fall silent.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

pub mod ends;
pub mod hosts;
pub mod network;

/// Bytes that no compression makes shorter, the same for the same seed.
pub fn random(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
