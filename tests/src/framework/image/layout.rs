//! Writes an image as a tar file of the OCI layout.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{json, Value};
use sha2::{Digest, Sha256};
use tar::{Builder, Header};

use super::layer::Layer;

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// Writes the image `reference` with this configuration and these layers, the lowest first, to `target`.
pub fn write(target: &Path, reference: &str, config: &Value, layers: &[Layer]) -> Result<()> {
    let file = File::create(target).with_context(|| format!("cannot make {}", target.display()))?;
    let mut tar = Builder::new(BufWriter::new(file));
    add(&mut tar, "oci-layout", &serde_json::to_vec(&json!({ "imageLayoutVersion": "1.0.0" }))?)?;
    let config = add_blob(&mut tar, CONFIG_TYPE, &image_config(config, layers))?;
    let layers = layers.iter().map(|layer| add_layer(&mut tar, layer)).collect::<Result<Vec<_>>>()?;
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers });
    let mut entry = add_blob(&mut tar, MANIFEST_TYPE, &manifest)?;
    let (_, tag) = reference.rsplit_once(':').context("an image without a tag")?;
    entry["annotations"] =
        json!({ "io.containerd.image.name": reference, "org.opencontainers.image.ref.name": tag });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    add(&mut tar, "index.json", &serde_json::to_vec(&index)?)?;
    tar.into_inner()?.flush().with_context(|| format!("cannot write {}", target.display()))
}

fn image_config(config: &Value, layers: &[Layer]) -> Value {
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
    json!({
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
}

fn add_blob<W: Write>(tar: &mut Builder<W>, media_type: &str, content: &Value) -> Result<Value> {
    let content = serde_json::to_vec(content)?;
    let hash = hex::encode(Sha256::digest(&content));
    add(tar, &format!("blobs/sha256/{hash}"), &content)?;
    Ok(descriptor(media_type, &format!("sha256:{hash}"), content.len() as u64))
}

fn add_layer<W: Write>(tar: &mut Builder<W>, layer: &Layer) -> Result<Value> {
    let file = File::open(&layer.path).with_context(|| format!("cannot read {}", layer.path.display()))?;
    tar.append_data(&mut header(layer.size), format!("blobs/{}", layer.digest.replace(':', "/")), file)?;
    Ok(descriptor(LAYER_TYPE, &layer.digest, layer.size))
}

fn add<W: Write>(tar: &mut Builder<W>, name: &str, content: &[u8]) -> Result<()> {
    Ok(tar.append_data(&mut header(content.len() as u64), name, content)?)
}

fn header(size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(size);
    header
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}
