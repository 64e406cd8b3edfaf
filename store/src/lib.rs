//! Checkpoints at rest: in a directory, as an OCI artefact in a registry, in an S3-compatible object store.

#![forbid(unsafe_code)]
