//! Manifests that say what is not so, or what no manifest says.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{json, Value};

use super::Ends::{Harmless, Refused};
use super::Hostile;
use crate::suites::security::craft::Checkpoint;
use crate::suites::security::outside::CONTENT;

pub(super) const IMAGES: &[Hostile] = &[
    Hostile {
        name: "a file that lies above",
        make: |image| add(image, "../../../srv/outside/secret"),
        ends: Refused(&["is not a plain file name"]),
    },
    Hostile {
        name: "a file with an absolute path",
        make: |image| add(image, "/srv/outside/secret"),
        ends: Refused(&["is not a plain file name"]),
    },
    Hostile {
        name: "a file whose name ends early",
        make: |image| add(image, "core-1001.img\0/../../srv/outside/secret"),
        ends: Refused(&["is not a plain file name"]),
    },
    Hostile {
        name: "a file without a name",
        make: |image| add(image, ""),
        ends: Refused(&["plain file name"]),
    },
    Hostile { name: "a file called ..", make: |image| add(image, ".."), ends: Refused(&["plain file name"]) },
    Hostile {
        name: "a parent that it vouches for",
        make: |image| add(image, "parent"),
        ends: Refused(&["plain file name"]),
    },
    Hostile {
        name: "a name of a megabyte",
        make: |image| add(image, &"n".repeat(1 << 20)),
        ends: Refused(&["is missing or not a file"]),
    },
    Hostile {
        name: "a size that overflows",
        make: |image| set(image, "/files/0/size", json!(u64::MAX)),
        ends: Refused(&["another size"]),
    },
    Hostile {
        name: "a size below nothing",
        make: |image| set(image, "/files/0/size", json!(-1)),
        ends: Refused(&["manifest", "is damaged"]),
    },
    Hostile {
        name: "a digest that is none",
        make: |image| set(image, "/files/0/blake3", json!("")),
        ends: Refused(&["another content"]),
    },
    Hostile {
        name: "the container's init as the application",
        make: |image| processes(image, 1, &[1]),
        ends: Refused(&["names an impossible pid"]),
    },
    Hostile {
        name: "no process as the application",
        make: |image| processes(image, 0, &[1001, 1002]),
        ends: Refused(&["names an impossible pid"]),
    },
    Hostile {
        name: "a process below nothing as the application",
        make: |image| processes(image, -1, &[1001, 1002]),
        ends: Refused(&["names an impossible pid"]),
    },
    Hostile {
        name: "another process of it as the application",
        make: |image| processes(image, 1002, &[1001, 1002]),
        ends: Refused(&["could not prepare the restored root"]),
    },
    Hostile {
        name: "a number that no process can have",
        make: |image| processes(image, 1001, &[1001, 1002, i32::MAX]),
        ends: Refused(&["names an impossible pid"]),
    },
    Hostile {
        name: "a container that it is not",
        make: |image| set(image, "/terminal", json!(true)),
        ends: Refused(&["terminal"]),
    },
    Hostile {
        name: "capabilities that the container has not",
        make: |image| set(image, "/capabilities", json!(["CAP_SYS_ADMIN", "CAP_SYS_MODULE"])),
        ends: Refused(&["CAP_SYS_ADMIN", "CAP_SYS_MODULE"]),
    },
    Hostile {
        name: "a word that no manifest has",
        make: |image| set(image, "/mounts", json!([{ "source": "/", "destination": "/host" }])),
        ends: Refused(&["manifest", "is damaged"]),
    },
    Hostile {
        name: "the same word twice",
        make: |image| text(image, |text| text.replacen('{', r#"{"terminal":false,"#, 1)),
        ends: Refused(&["manifest", "is damaged"]),
    },
    Hostile {
        name: "the same file twice",
        make: |image| {
            image.manifest(|manifest| {
                let first = manifest["files"][0].clone();
                if let Some(files) = manifest["files"].as_array_mut() {
                    files.push(first);
                }
            })
        },
        ends: Refused(&["names a file twice"]),
    },
    Hostile {
        name: "no files",
        make: |image| set(image, "/files", json!([])),
        ends: Refused(&["is not in its manifest"]),
    },
    Hostile {
        name: "a hundred thousand brackets",
        make: |image| Ok(fs::write(image.path("manifest.json"), "[".repeat(100_000))?),
        ends: Refused(&["manifest", "is damaged"]),
    },
    Hostile {
        name: "another version of the manifest",
        make: |image| set(image, "/format", json!(4_294_967_295_u32)),
        ends: Refused(&["format 4294967295"]),
    },
    Hostile {
        name: "streams by the thousand that are no streams",
        make: |image| {
            let stream =
                |number: u32| json!({ "number": number % 256, "key": format!("file[{number:x}:1]") });
            set(image, "/stdio", (0..5000).map(stream).collect::<Vec<_>>().into())
        },
        ends: Refused(&["stdio"]),
    },
    Hostile {
        name: "an instruction set of its own",
        make: |image| set(image, "/cpu_features", (0..100_000).map(|n| format!("f{n}")).collect()),
        ends: Refused(&["a CPU with f0, f1"]),
    },
    Hostile {
        name: "a command with control characters",
        make: |image| set(image, "/command", json!(["\u{1b}]0;owned\u{7}", "\0"])),
        ends: Harmless(|_| Ok(())),
    },
];

/// A file that the manifest vouches for, in the words of one that lies elsewhere.
fn add(image: &Checkpoint, name: &str) -> Result<()> {
    let digest = blake3::hash(CONTENT.as_bytes()).to_hex().to_string();
    let file = json!({ "name": name, "size": CONTENT.len(), "blake3": digest });
    image.manifest(|manifest| {
        if let Some(files) = manifest["files"].as_array_mut() {
            files.insert(0, file);
        }
    })
}

fn set(image: &Checkpoint, pointer: &str, value: Value) -> Result<()> {
    let mut found = None;
    image.manifest(|manifest| {
        if pointer.rfind('/') == Some(0) {
            manifest[&pointer[1..]] = value;
            found = Some(());
        } else if let Some(place) = manifest.pointer_mut(pointer) {
            *place = value;
            found = Some(());
        }
    })?;
    found.with_context(|| format!("no {pointer}"))
}

fn processes(image: &Checkpoint, root: i64, pids: &[i32]) -> Result<()> {
    set(image, "/root_pid", json!(root))?;
    set(image, "/pids", json!(pids))
}

fn text(image: &Checkpoint, change: impl FnOnce(String) -> String) -> Result<()> {
    let path = image.path("manifest.json");
    let text = fs::read_to_string(&path)?;
    Ok(fs::write(path, change(text))?)
}
