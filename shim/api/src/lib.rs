//! The shim's own ttrpc service `fastmig.v1.Fastmig`: messages, server and client, generated from
//! `proto/fastmig.proto`, which says what each call does.
#![allow(clippy::all, clippy::pedantic, missing_docs, missing_debug_implementations, unreachable_pub)]

include!(concat!(env!("OUT_DIR"), "/mod.rs"));

/// Where the shim `id` of a namespace listens, below the state directory `root`.
#[must_use]
pub fn socket(root: &std::path::Path, namespace: &str, id: &str) -> std::path::PathBuf {
    root.join(namespace).join(format!(".{id}.sock"))
}
