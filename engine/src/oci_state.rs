//! What runc says of a container, mended where runc cannot know better: it was given a stand-in for the client's
//! bundle, and the application alone is frozen when its container is paused.

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::{json, Value};

use crate::runc::{Options, Runc, Voice};
use crate::state::{self, Directory, Record};
use crate::{Config, Container, Error};

impl Container {
    /// `runc state`.
    ///
    /// # Errors
    /// When runc fails.
    pub fn oci_state(&self) -> Result<Value, Error> {
        let record = self.directory.load(&self.key)?;
        let mut value = parse(&self.runc(&record).run(&["state", self.key.id()])?, self.key.id())?;
        mend(&mut value, &record);
        Ok(value)
    }
}

/// `runc list`: every container below `options.root`, also those that FastMig does not know.
///
/// # Errors
/// When runc fails.
pub fn list(config: &Config, options: &Options, voice: Voice) -> Result<Vec<Value>, Error> {
    let runc = Runc::new(options.clone(), PathBuf::from("/dev/null"), config.limits.runc()).with_voice(voice);
    let value = parse(&runc.run(&["list", "--format", "json"])?, "runc list")?;
    let mut entries = match value {
        Value::Array(entries) => entries,
        _ => Vec::new(), // null, where there is none
    };
    let records = records_below(config, options)?;
    for entry in &mut entries {
        if let Some(record) = entry["id"].as_str().and_then(|id| records.get(id)) {
            mend(entry, record);
        }
    }
    Ok(entries)
}

fn records_below(config: &Config, options: &Options) -> Result<HashMap<String, Record>, Error> {
    let namespace = options.namespace();
    let keys = state::list(config)?.into_iter().filter(|key| key.namespace() == namespace);
    Ok(keys
        .filter_map(|key| Some((key.id().to_owned(), Directory::of(config, &key).load(&key).ok()?)))
        .collect())
}

fn mend(value: &mut Value, record: &Record) {
    if record.left_alone.is_some() {
        return;
    }
    if value.get("bundle").is_some() {
        let bundle = record.bundle.canonicalize().unwrap_or_else(|_| record.bundle.clone());
        value["bundle"] = json!(bundle);
    }
    if record.paused && value["status"] == "running" {
        value["status"] = json!("paused");
    }
}

fn parse(text: &str, id: &str) -> Result<Value, Error> {
    serde_json::from_str(text).map_err(|source| Error::State { id: id.into(), path: "runc".into(), source })
}
