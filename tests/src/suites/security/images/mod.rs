//! Hostile checkpoints, by what is wrong with them. Each is refused by name, or restored without effect, and nothing
//! outside the container is created, changed or read.

mod directory;
mod files;
mod filters;
mod manifest;
mod processes;

use anyhow::{bail, ensure, Context, Result};

use super::craft::Checkpoint;
use super::stage::Stage;
use crate::framework::{Case, Ctx};

/// One that somebody made to do harm.
pub(super) struct Hostile {
    /// What is wrong with it.
    name: &'static str,
    /// Makes it so.
    make: fn(&Checkpoint) -> Result<()>,
    ends: Ends,
}

/// What becomes of it.
enum Ends {
    /// Refused, with these words.
    Refused(&'static [&'static str]),
    /// The one or the other, as the kernel will have it.
    Either(&'static [&'static str], fn(&Stage) -> Result<()>),
    /// Restored, and harmless; this looks for the harm. The application runs.
    Harmless(fn(&Stage) -> Result<()>),
}

/// What takes longer is told: CRIU had to be given up.
const SLOW: std::time::Duration = std::time::Duration::from_secs(5);

/// The options of the container that nobody can become root in.
const AS_USER: &[&str] = &["--user", "1000:1000"];

pub(super) const CASES: &[Case] = &[
    Case {
        name: "hostile images: what is no plain directory of files",
        run: |ctx| each(ctx, &[], directory::IMAGES).into(),
    },
    Case {
        name: "hostile images: what the manifest makes up",
        run: |ctx| each(ctx, &[], manifest::IMAGES).into(),
    },
    Case {
        name: "hostile images: processes that are more than they were",
        run: |ctx| each(ctx, &[], processes::IMAGES).into(),
    },
    Case {
        name: "hostile images: processes under other filters than their container's",
        run: |ctx| each(ctx, &[], filters::IMAGES).into(),
    },
    Case {
        name: "hostile images: more than a user without new privileges",
        run: |ctx| each(ctx, AS_USER, processes::AS_USER).into(),
    },
    Case {
        name: "hostile images: files of a root that lead elsewhere",
        run: |ctx| each(ctx, &[], files::IMAGES).into(),
    },
];

/// Tries all of them on one container, which none of them harms.
fn each(ctx: &Ctx, options: &[&str], images: &[Hostile]) -> Result<()> {
    let stage = Stage::new(ctx, options)?;
    let mut wrong = Vec::new();
    for image in images {
        let begun = std::time::Instant::now();
        if let Err(error) = one(&stage, image) {
            wrong.push(format!("{}: {error:#}", image.name));
        }
        if begun.elapsed() > SLOW {
            println!("    {} took {:.1} s", image.name, begun.elapsed().as_secs_f64());
        }
        if stage.container.require("standby").is_err() {
            stage.container.operate("standby", &[])?;
        }
    }
    if !wrong.is_empty() {
        bail!("{} of {}:\n{}", wrong.len(), images.len(), wrong.join("\n"));
    }
    println!("    {} hostile images", images.len());
    stage.end()
}

fn one(stage: &Stage, image: &Hostile) -> Result<()> {
    let (place, path) = stage.place();
    let checkpoint = Checkpoint::copy(&stage.good(), &place)?;
    (image.make)(&checkpoint).context("it cannot be made")?;
    let before = stage.outside()?;
    let output = stage.restore(path)?;
    stage.outside()?.is_as(&before)?;
    let text = output.out() + &output.err();
    match image.ends {
        Ends::Refused(words) | Ends::Either(words, _) if !output.status.success() => {
            for word in words {
                ensure!(text.contains(word), "nothing of {word:?} in: {text}");
            }
            ensure!(!text.contains(super::outside::CONTENT.trim()), "a secret is told: {text}");
            stage.container.require("standby").context("after a refusal")?;
        }
        Ends::Refused(_) => bail!("it is restored"),
        Ends::Harmless(look) | Ends::Either(_, look) => {
            ensure!(output.status.success(), "it is refused: {text}");
            stage.container.require("running")?;
            look(stage)?;
            stage.outside()?.is_as(&before)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ALL: &[(&str, &[Hostile])] = &[
        ("directory", directory::IMAGES),
        ("manifest", manifest::IMAGES),
        ("processes", processes::IMAGES),
        ("as user", processes::AS_USER),
        ("filters", filters::IMAGES),
        ("files", files::IMAGES),
    ];

    #[test]
    fn they_are_many_and_no_two_are_the_same() {
        let names =
            || ALL.iter().flat_map(|(group, images)| images.iter().map(move |image| (group, image.name)));
        assert!(names().count() >= 40, "{}", names().count());
        assert_eq!(names().collect::<BTreeSet<_>>().len(), names().count());
    }
}
