//! The commands.

use std::collections::BTreeSet;
use std::process::ExitCode;

use fastmig_engine::config::Store as Settings;
use fastmig_engine::Config;
use fastmig_store::{Label, Location, Name, Place, Pulled, Pushed, Store, StoreError};
use serde::Serialize;
use tokio::signal::unix::{signal, SignalKind};

use crate::answer::Answer;
use crate::command_line::{Command, Delete, List, Prune, Pull, Push};

/// Both sides of a stream, and as many links as are used at a time.
const THREADS: usize = 4;

pub(crate) fn run(command: Command, answer: Answer) -> ExitCode {
    let settings = match Config::load() {
        Ok(config) => config.store,
        Err(e) => return answer.failure(&e.report(), &format!("{:?}", e.kind())),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(perform(command, &settings, answer)),
        Err(e) => answer.failure(&format!("could not start threads: {e}"), "Internal"),
    }
}

async fn perform(command: Command, settings: &Settings, answer: Answer) -> ExitCode {
    match command {
        Command::List(asked) => answer.conclude(list(asked, settings).await, |labels| table(labels)),
        Command::Delete(asked) => {
            answer.conclude(delete(asked, settings).await, |gone| format!("deleted {}", gone.deleted))
        }
        Command::Prune(asked) => answer.conclude(prune(asked, settings).await, |gone| {
            format!("{} interrupted and {} old ones are gone", gone.interrupted.len(), gone.old.len())
        }),
        Command::Push(asked) => answer.conclude(push(asked, settings).await, |pushed| {
            let Pushed { location, bytes, stored, .. } = &pushed.pushed;
            format!("{location}: {bytes} bytes, stored as {stored}")
        }),
        Command::Pull(asked) => answer.conclude(pull(asked, settings).await, |pulled| {
            format!("{} bytes in {}", pulled.bytes, pulled.path.display())
        }),
    }
}

/// Ends a push or a pull, which then takes back what it has done.
async fn stopped() {
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
    else {
        // Then a signal simply kills us.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {}
    }
}

/// All of `text` as a place, but for `store:`.
fn place(text: &str, settings: &Settings) -> Result<Place, StoreError> {
    let location = if text.starts_with("store:") {
        Location::parse(text, &settings.location)?
    } else {
        Location { place: Place::parse(text)?, name: None }
    };
    match location.name {
        None => Ok(location.place),
        Some(_) => Err(StoreError::Location { text: text.into(), problem: "it names a checkpoint" }),
    }
}

#[derive(Serialize)]
struct Listed {
    location: String,
    name: Name,
    container: String,
    created: String,
    bytes: u64,
    stored: u64,
    encrypted: bool,
}

async fn list(asked: List, settings: &Settings) -> Result<Vec<Listed>, StoreError> {
    let place = place(&asked.place, settings)?;
    let labels = Store::open(&place, settings)?.list().await?;
    Ok(labels
        .into_iter()
        .map(|Label { name, container, created, bytes, stored, encrypted, .. }| Listed {
            location: place.with(&name),
            name,
            container,
            created,
            bytes,
            stored,
            encrypted,
        })
        .collect())
}

fn table(labels: &[Listed]) -> String {
    let mut lines =
        vec![format!("{:<40} {:<20} {:<24} {:>12} {:>12}", "NAME", "CONTAINER", "TAKEN", "BYTES", "STORED")];
    lines.extend(labels.iter().map(|label| {
        let Listed { name, container, created, bytes, stored, encrypted, .. } = label;
        let note = if *encrypted { "  encrypted" } else { "" };
        // Whoever wrote the label chose these words.
        let clean = |text: &str| text.chars().filter(|c| !c.is_control()).take(60).collect::<String>();
        format!(
            "{:<40} {:<20} {:<24} {bytes:>12} {stored:>12}{note}",
            name.as_str(),
            clean(container),
            clean(created)
        )
    }));
    lines.join("\n")
}

#[derive(Serialize)]
struct Deleted {
    deleted: String,
}

async fn delete(asked: Delete, settings: &Settings) -> Result<Deleted, StoreError> {
    let location = Location::parse(&asked.location, &settings.location)?;
    let name = location
        .name
        .ok_or(StoreError::Location { text: asked.location, problem: "it names no checkpoint" })?;
    Store::open(&location.place, settings)?.delete(&name).await?;
    Ok(Deleted { deleted: location.place.with(&name) })
}

#[derive(Serialize)]
struct Pruned {
    interrupted: Vec<Name>,
    old: Vec<Name>,
}

async fn prune(asked: Prune, settings: &Settings) -> Result<Pruned, StoreError> {
    let store = Store::open(&place(&asked.place, settings)?, settings)?;
    let interrupted = store.prune(asked.older_than).await?;
    let mut old = Vec::new();
    if let Some(count) = asked.keep.filter(|count| *count > 0) {
        let containers: BTreeSet<String> =
            store.list().await?.into_iter().map(|label| label.container).collect();
        for container in containers {
            old.extend(store.keep(&container, count as usize).await?);
        }
    }
    Ok(Pruned { interrupted, old })
}

#[derive(Serialize)]
struct Stored {
    #[serde(flatten)]
    pushed: Pushed,
    /// Those that made room for it.
    deleted: Vec<Name>,
}

async fn push(asked: Push, settings: &Settings) -> Result<Stored, StoreError> {
    let Location { place, name } = Location::parse(&asked.location, &settings.location)?;
    let store = Store::open(&place, settings)?;
    let push = fastmig_store::Push {
        container: asked.container.clone(),
        name,
        encrypt: asked.encrypt || settings.encrypt,
    };
    let pushed = store.push(&asked.directory, &push, stopped()).await?;
    let deleted = match asked.keep.unwrap_or(settings.keep) {
        0 => Vec::new(),
        count => store.keep(&asked.container, count as usize).await.unwrap_or_else(|e| {
            // The checkpoint is stored: that is what was asked for.
            tracing::warn!(error = e.report(), "old checkpoints stay");
            Vec::new()
        }),
    };
    Ok(Stored { pushed, deleted })
}

async fn pull(asked: Pull, settings: &Settings) -> Result<Pulled, StoreError> {
    let Location { place, name } = Location::parse(&asked.location, &settings.location)?;
    let store = Store::open(&place, settings)?;
    let name = match (name, asked.container) {
        (Some(name), _) => name,
        (None, Some(container)) => store.newest(&container).await?,
        (None, None) => {
            return Err(StoreError::Location { text: asked.location, problem: "it names no checkpoint" });
        }
    };
    store.pull(&name, &asked.directory, stopped()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_all_of_its_text() {
        let settings = Settings { location: "s3://home/x".into(), ..Settings::default() };
        assert_eq!(place("/a/b", &settings).unwrap().to_string(), "/a/b");
        assert_eq!(place("store:", &settings).unwrap().to_string(), "s3://home/x");
        assert!(place("store:web", &settings).is_err());
    }
}
