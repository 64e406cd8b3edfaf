//! What a host still lacks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::consumer::Consumer;
use crate::diff;
use crate::site::{Attributes, Site};
use crate::things::{Source, Thing, Wanted, THINGS};
use crate::Error;

/// The changes that make a host what it should be, and what is left alone.
#[derive(Debug, Default)]
pub struct Plan {
    /// In the order in which they are made.
    pub changes: Vec<Change>,
    /// What is left alone, and why.
    pub notes: Vec<String>,
    /// Services that must be restarted before they take notice.
    pub restart: Vec<String>,
}

/// One file or directory, as it will be.
#[derive(Debug, Clone)]
pub struct Change {
    pub(crate) path: PathBuf,
    pub(crate) thing: Thing,
    pub(crate) content: Option<Vec<u8>>,
    pub(crate) attributes: Attributes,
    pub(crate) consumer: Option<Consumer>,
    before: Option<Vec<u8>>,
}

impl Change {
    fn directory(path: &Path, thing: Thing) -> Self {
        let attributes = Attributes::new(0o755);
        Self { path: path.to_owned(), thing, content: None, attributes, consumer: None, before: None }
    }

    /// The file, as the host names it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The change in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let path = self.path.display();
        match (&self.content, &self.before) {
            (None, _) => format!("make {path}/"),
            (Some(_), None) => format!("create {path}"),
            (Some(_), Some(_)) => format!("change {path}"),
        }
    }

    /// What changes in a file of the operator's.
    #[must_use]
    pub fn diff(&self) -> Option<String> {
        let text = |content: &Option<Vec<u8>>| String::from_utf8(content.clone().unwrap_or_default()).ok();
        let (before, after) = (text(&self.before)?, text(&self.content)?);
        let is_shown = self.thing.is_configuration() && self.content.is_some();
        is_shown.then(|| diff::unified(&self.path.display().to_string(), &before, &after))
    }
}

/// What `site` still lacks of what `source` has.
pub(crate) fn plan(site: &Site, source: &Source) -> Result<Plan, Error> {
    let mut plan = Plan::default();
    let mut made = BTreeSet::new();
    for thing in THINGS {
        let part = thing.part(site, source)?;
        plan.notes.extend(part.notes);
        let before = plan.changes.len();
        for wanted in part.files {
            let Some(change) = lacking(site, *thing, wanted)? else { continue };
            let parents = site.missing_parents(&change.path).into_iter();
            let new =
                parents.filter(|dir| made.insert(dir.clone())).map(|dir| Change::directory(&dir, *thing));
            plan.changes.extend(new.collect::<Vec<_>>());
            made.insert(change.path.clone());
            plan.changes.push(change);
        }
        if plan.changes.len() > before {
            plan.restart.extend(part.restart.map(String::from));
        }
    }
    Ok(plan)
}

fn lacking(site: &Site, thing: Thing, wanted: Wanted) -> Result<Option<Change>, Error> {
    let Some(content) = wanted.content else {
        let is_there = site.metadata(&wanted.path)?.is_some_and(|metadata| metadata.is_dir());
        return Ok((!is_there).then(|| Change::directory(&wanted.path, thing)));
    };
    let before = site.read(&wanted.path)?;
    if before.as_ref() == Some(&content) {
        return Ok(None);
    }
    // A file of the operator's keeps its owner and mode.
    let attributes = match site.metadata(&wanted.path)? {
        Some(metadata) if thing.is_configuration() => Attributes::of(&metadata),
        _ => Attributes::new(wanted.mode),
    };
    Ok(Some(Change {
        path: wanted.path,
        thing,
        content: Some(content),
        attributes,
        consumer: wanted.consumer,
        before,
    }))
}
