//! Files of a checkpoint are damaged: flipped, cut short, gone.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};

use super::ends::short;
use super::phases::{Operation, Phase};
use super::seen::Fate;
use super::subject::Subject;

pub(super) const DAMAGED: &str = "each file of a checkpoint flipped, cut short or gone";

#[derive(Debug, Clone, Copy)]
enum Harm {
    Flipped,
    CutShort,
    Gone,
}

const HARMS: [Harm; 3] = [Harm::Flipped, Harm::CutShort, Harm::Gone];

fn harm(file: &Path, harm: Harm) -> Result<()> {
    match harm {
        Harm::Gone => fs::remove_file(file)?,
        Harm::CutShort => {
            let content = fs::read(file)?;
            fs::write(file, &content[..content.len() / 2])?;
        }
        Harm::Flipped => {
            let mut content = fs::read(file)?;
            let middle = content.len() / 2;
            *content.get_mut(middle).context("an empty file cannot be flipped")? ^= 0x10;
            fs::write(file, content)?;
        }
    }
    Ok(())
}

pub(super) fn damaged(subject: &mut Subject, phase: Phase, number: u32) -> Result<()> {
    subject.ready(phase)?;
    match phase {
        Phase::Normal => decided_anew(subject),
        Phase::Checkpointing => not_built_upon(subject, number),
        Phase::Restoring => refused(subject),
        Phase::Migrating => of_no_matter(subject),
    }
}

/// A policy restores from the last one, which is damaged.
fn decided_anew(subject: &mut Subject) -> Result<()> {
    let operation = subject.performed(Phase::Checkpointing)?;
    ensure!(operation == Operation::Done, "{operation:?}");
    subject.take_for_past()?;
    harm(&largest(&files(subject)?)?, Harm::Flipped)?;
    subject.tell("exit 0")?;
    let (fate, reason) = subject.decided_at_last("scratch")?;
    ensure!(reason.contains("could not be restored"), "{reason}");
    subject.note(fate, &short(&reason));
    Ok(())
}

/// The next checkpoint does not take over what is wrong in the one before.
fn not_built_upon(subject: &mut Subject, _number: u32) -> Result<()> {
    let before = format!("{}-before", subject.image());
    let host = subject.source().host.clone();
    for kind in HARMS {
        host.cmd(["rm", "-rf", &before]).ok()?;
        let options = ["--leave-running", "--files", "--image-path", &before];
        subject.source().operate("checkpoint", &options)?;
        let memory: Vec<PathBuf> = in_directory(&host.outside(&before))?
            .into_iter()
            .filter(|file| file.to_string_lossy().contains("memory"))
            .collect();
        memory.iter().filter(|file| !is_empty(file)).try_for_each(|file| harm(file, kind))?;
        let operation = subject.performed(Phase::Checkpointing)?;
        ensure!(operation == Operation::Done, "{kind:?}: {operation:?}");
        subject.source().operate("standby", &[])?;
        subject.source().restore(&subject.image()).with_context(|| format!("{kind:?}"))?;
        ensure!(subject.answers()? == subject.marked(), "{kind:?}: the next one took over what was wrong");
    }
    host.cmd(["rm", "-rf", &before]).ok()?;
    subject.take_for_past()?;
    let fate = subject.settled()?;
    subject.note(fate, "the next checkpoint does not build on it");
    Ok(())
}

/// Each damage is refused, and named, before anything happens.
fn refused(subject: &mut Subject) -> Result<()> {
    let bad = format!("{}-bad", subject.image());
    let host = subject.source().host.clone();
    let good = files(subject)?;
    let mut kinds = std::collections::BTreeSet::new();
    for file in &good {
        let name = file.file_name().context("a file without a name")?.to_string_lossy().into_owned();
        let kind: String = name.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).collect();
        if !kinds.insert(kind) {
            continue;
        }
        for harm in HARMS {
            if is_empty(file) && !matches!(harm, Harm::Gone) {
                continue;
            }
            host.sh(&format!("rm -rf {bad}; cp -a {} {bad}", subject.image())).ok()?;
            self::harm(&host.outside(&bad).join(&name), harm)?;
            match subject.restored_from(&bad)? {
                Operation::Failed(said) => {
                    let named = said.contains(&name) || (name == "manifest.json" && said.contains("damaged"));
                    ensure!(named, "{name} {harm:?}: the file is not named: {said}");
                    subject.source().require("standby")?;
                }
                // Its own text is under no checksum; what it says of the others is.
                Operation::Done if name == "manifest.json" => {
                    ensure!(
                        subject.answers()? == subject.marked(),
                        "{name} {harm:?}: something else came up"
                    );
                    subject.source().operate("standby", &[])?;
                }
                other => bail!("{name} {harm:?}: {other:?}"),
            }
        }
    }
    host.cmd(["rm", "-rf", &bad]).ok()?;
    let reason = format!("refused by the file's name, {} kinds of files", kinds.len());
    println!("        {reason}: {kinds:?}");
    let status = subject.status()?;
    ensure!(status["last_failure"]["operation"] == "restore", "{status}");
    subject.note(Fate::Standby, "refused by the file's name");
    Ok(())
}

/// Migrations have no files, and use none.
fn of_no_matter(subject: &mut Subject) -> Result<()> {
    ensure!(subject.performed(Phase::Checkpointing)? == Operation::Done, "no checkpoint");
    for file in files(subject)? {
        harm(&file, Harm::Gone)?;
    }
    let operation = subject.performed(Phase::Migrating)?;
    ensure!(operation == Operation::Done, "{operation:?}");
    subject.has_moved();
    subject.arrived()?;
    subject.note(Fate::Moved, "");
    Ok(())
}

fn files(subject: &Subject) -> Result<Vec<PathBuf>> {
    in_directory(&subject.source().host.outside(&subject.image()))
}

fn in_directory(path: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    Ok(files)
}

fn largest(files: &[PathBuf]) -> Result<PathBuf> {
    let size = |file: &&PathBuf| fs::metadata(file).map_or(0, |metadata| metadata.len());
    files.iter().max_by_key(size).cloned().context("no files")
}

fn is_empty(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| metadata.len() == 0)
}
