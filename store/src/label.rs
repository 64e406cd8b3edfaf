//! The label of a stored checkpoint: which parts it is made of, and what a list shows of it. It is written last.

use serde::{Deserialize, Serialize};

pub use crate::parts::Part;
use crate::parts::PART_SIZE;
use crate::Name;

/// The version of the label that this code writes, and the only one that it reads.
pub const FORMAT: u32 = 1;

/// No label is larger: it lists parts, 100 bytes each.
pub(crate) const LARGEST_LABEL: u64 = 4 << 20;

/// What makes parts a checkpoint. It is not encrypted, and tells nothing of the application but its container's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// [`FORMAT`].
    pub format: u32,
    /// Its name.
    pub name: Name,
    /// The container that it was taken of, as whoever stored it called it.
    pub container: String,
    /// When it was taken, RFC 3339.
    pub created: String,
    /// Bytes in its files.
    pub bytes: u64,
    /// Bytes that are stored.
    pub stored: u64,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// The push that brought it, which its parts lie under.
    pub push: PushId,
    /// Its parts, in their order.
    pub parts: Vec<Part>,
}

/// Tells the parts of one push from those of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PushId(String);

impl PushId {
    const LENGTH: usize = 16;

    /// One that nobody else has.
    pub(crate) fn new() -> std::io::Result<Self> {
        let mut number = [0; Self::LENGTH / 2];
        getrandom::fill(&mut number).map_err(std::io::Error::other)?;
        Ok(Self(hex::encode(number)))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PushId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.len() == Self::LENGTH
            && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            return Ok(Self(text));
        }
        Err("a push is 16 hexadecimal digits")
    }
}

impl From<PushId> for String {
    fn from(push: PushId) -> Self {
        push.0
    }
}

/// What is wrong with a label.
#[derive(Debug)]
pub(crate) enum Wrong {
    Format(u32),
    Content(String),
}

impl Label {
    /// Reads the label that lies under `name`.
    pub(crate) fn read(text: &[u8], name: &Name) -> Result<Self, Wrong> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let bad = |e: serde_json::Error| Wrong::Content(format!("its label is not readable ({e})"));
        let version: Version = serde_json::from_slice(text).map_err(bad)?;
        if version.format != FORMAT {
            return Err(Wrong::Format(version.format));
        }
        let label: Self = serde_json::from_slice(text).map_err(bad)?;
        label.check(name).map_err(|problem| Wrong::Content(problem.into()))?;
        Ok(label)
    }

    fn check(&self, name: &Name) -> Result<(), &'static str> {
        if self.name != *name {
            return Err("its label is that of another one");
        }
        if self.parts.iter().any(|part| part.size == 0 || part.size > PART_SIZE as u64) {
            return Err("its label names a part of an impossible size");
        }
        let is_digest = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if !self.parts.iter().all(|part| is_digest(&part.sha256)) {
            return Err("its label names a part without a digest");
        }
        if self.parts.iter().map(|part| part.size).sum::<u64>() != self.stored {
            return Err("its label does not add up");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label() -> Label {
        Label {
            format: FORMAT,
            name: "web".parse().unwrap(),
            container: "web".into(),
            created: "2026-01-01T00:00:00Z".into(),
            bytes: 7,
            stored: 3,
            encrypted: false,
            push: PushId::new().unwrap(),
            parts: vec![Part { size: 3, sha256: "a".repeat(64) }],
        }
    }

    fn read(label: &Label) -> Result<Label, Wrong> {
        Label::read(&serde_json::to_vec(label).unwrap(), &"web".parse().unwrap())
    }

    #[test]
    fn what_is_written_is_read() {
        let label = label();
        assert_eq!(read(&label).unwrap(), label);
    }

    #[test]
    fn a_label_that_lies_is_refused() {
        type Harm = (&'static str, fn(&mut Label));
        let harm: [Harm; 7] = [
            ("another name", |l| l.name = "other".parse().unwrap()),
            ("a huge part", |l| l.parts[0].size = u64::MAX),
            ("an empty part", |l| l.parts.push(Part { size: 0, sha256: "a".repeat(64) })),
            ("no digest", |l| l.parts[0].sha256 = "../../etc".into()),
            ("a wrong sum", |l| l.stored = 4),
            ("no part", |l| l.parts.clear()),
            ("another format", |l| l.format = 2),
        ];
        for (what, harm) in harm {
            let mut label = label();
            harm(&mut label);
            assert!(read(&label).is_err(), "{what}");
        }
        for (from, to) in [("\"push\":\"", "\"push\":\"../"), ("\"bytes\":", "\"more\":1,\"bytes\":")] {
            let text = serde_json::to_string(&label()).unwrap().replace(from, to);
            assert!(Label::read(text.as_bytes(), &"web".parse().unwrap()).is_err(), "{text}");
        }
    }
}
