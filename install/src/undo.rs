//! One change taken back, unless somebody else has changed the file since.

use crate::journal::{checksum, Entry, Journal, Kept};
use crate::site::{Attributes, Site};
use crate::Error;

/// What taking a change back comes to.
#[derive(Debug)]
pub(crate) enum Reversal {
    /// It was never made, or is gone already.
    Nothing,
    /// The directory is ours.
    RemoveDirectory,
    /// The file is ours.
    Remove,
    /// The file is ours, and there was another.
    PutBack(Kept),
    /// The file is not only ours any more: without our lines it is this.
    TakeOut(String),
    /// The file is no longer ours.
    Leave,
}

impl Reversal {
    /// What there will be to say.
    pub(crate) fn tell(&self, entry: &Entry) -> Told {
        let path = entry.path.display();
        match self {
            Self::Nothing => Told::Nothing,
            Self::RemoveDirectory => Told::Done(format!("remove {path}/")),
            Self::Remove => Told::Done(format!("remove {path}")),
            Self::PutBack(_) => Told::Done(format!("put back {path}")),
            Self::TakeOut(_) => {
                Told::Done(format!("take FastMig's lines out of {path}, which was changed since"))
            }
            Self::Leave => Told::Left(format!("{path} was changed since it was installed: left as it is")),
        }
    }

    /// What an entry of the journal needs now.
    pub(crate) fn of(site: &Site, entry: &Entry) -> Result<Self, Error> {
        let Some(after) = &entry.after else { return Ok(Self::RemoveDirectory) };
        let content = site.read(&entry.path)?;
        let now = content.as_deref().map(checksum);
        if !entry.mixed && now.as_ref() == entry.before.as_ref().map(|kept| &kept.checksum) {
            return Ok(Self::Nothing);
        }
        let is_ours = now.as_ref() == Some(after);
        if let Some(erase) = entry.thing.eraser().filter(|_| entry.mixed || !is_ours) {
            let text = site.read_text(&entry.path)?;
            let without_ours = text.map(|text| erase(&entry.path, &text)).transpose()?;
            return Ok(without_ours.map_or(Self::Leave, Self::TakeOut));
        }
        Ok(match is_ours {
            true => entry.before.clone().map_or(Self::Remove, Self::PutBack),
            false => Self::Leave,
        })
    }

    /// Does it, and tells.
    pub(crate) fn carry_out(self, site: &Site, journal: &Journal, entry: &Entry) -> Result<Told, Error> {
        let path = &entry.path;
        site.unstage(path)?;
        let told = self.tell(entry);
        match self {
            Self::Nothing | Self::Leave => {}
            Self::RemoveDirectory => {
                if !site.remove_directory(path)? {
                    return Ok(Told::Left(format!("{}/ is not empty: left where it is", path.display())));
                }
            }
            Self::Remove => site.remove(path)?,
            Self::PutBack(kept) => {
                let (content, attributes) = journal.kept(&kept)?;
                site.replace(path, &content, attributes)?;
            }
            Self::TakeOut(text) => {
                let metadata = site.metadata(path)?;
                let attributes =
                    metadata.map_or(Attributes::new(0o644), |metadata| Attributes::of(&metadata));
                site.replace(path, text.as_bytes(), attributes)?;
            }
        }
        Ok(told)
    }
}

/// What there is to say about it.
#[derive(Debug)]
pub(crate) enum Told {
    Nothing,
    Done(String),
    Left(String),
}

/// What there is to say after [`take_back`], where a run was killed.
pub(crate) const INTERRUPTED: &str = "an interrupted installation was taken back";

/// Takes back all that a run under way has done, the last first.
pub(crate) fn take_back(site: &Site, journal: &mut Journal) -> Result<(), Error> {
    // On a full disk the second round has the space that the first one frees.
    reverse_all(site, journal).or_else(|_| reverse_all(site, journal))?;
    journal.all_taken_back();
    Ok(())
}

/// Goes on after a failure, and answers the first one.
fn reverse_all(site: &Site, journal: &Journal) -> Result<(), Error> {
    let mut result = Ok(());
    for entry in journal.pending().iter().rev() {
        let reversed =
            Reversal::of(site, entry).and_then(|reversal| reversal.carry_out(site, journal, entry));
        result = result.and(reversed.map(drop));
    }
    result
}
