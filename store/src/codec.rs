//! The archive compressed and, when asked for, encrypted; and back. Both authenticate their end: what was cut off does not
//! pass for whole.

use std::io::{self, Read, Write};
use std::path::Path;

use age::x25519;
use age::{DecryptError, Decryptor, Encryptor, Identity, IdentityFile, Recipient};
use fastmig_engine::config::Store as Settings;

use crate::credentials;
use crate::StoreError;

/// zstd's limit on what a reader must remember, as a power of two: level 19 needs 8 MiB.
const LARGEST_WINDOW: u32 = 27;

/// How a checkpoint is packed.
#[derive(Debug, Clone)]
pub(crate) struct Packing {
    level: u32,
    threads: u32,
    recipients: Vec<x25519::Recipient>,
}

impl Packing {
    pub(crate) fn new(settings: &Settings, encrypt: bool) -> Result<Self, StoreError> {
        let recipients = if encrypt { recipients(settings)? } else { Vec::new() };
        Ok(Self { level: settings.compression, threads: settings.threads(), recipients })
    }

    pub(crate) fn encrypts(&self) -> bool {
        !self.recipients.is_empty()
    }

    /// Lets `write` write what is to come out packed of `out`, and answers `out`.
    pub(crate) fn pack<W: Write>(
        &self,
        out: W,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<W> {
        if !self.encrypts() {
            return self.compress(out, write);
        }
        let recipients = self.recipients.iter().map(|recipient| recipient as &dyn Recipient);
        let encryptor = Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
        self.compress(encryptor.wrap_output(out)?, write)?.finish()
    }

    fn compress<W: Write>(
        &self,
        out: W,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<W> {
        let mut encoder = zstd::Encoder::new(out, i32::try_from(self.level).unwrap_or(3))?;
        encoder.include_checksum(true)?;
        encoder.multithread(self.threads)?;
        write(&mut encoder)?;
        encoder.finish()
    }
}

fn recipients(settings: &Settings) -> Result<Vec<x25519::Recipient>, StoreError> {
    if settings.recipients.is_empty() {
        return Err(StoreError::Settings {
            problem: "there is nobody to encrypt to".into(),
            remedy: "set store.recipients in /etc/fastmig/config.toml to age's public keys (age-keygen makes them)".into(),
        });
    }
    let read = |text: &String| {
        text.parse().map_err(|problem| StoreError::Settings {
            problem: format!("{text:?} in store.recipients is no public key of age's ({problem})"),
            remedy: "it begins with age1; age-keygen -y IDENTITY prints it".into(),
        })
    };
    settings.recipients.iter().map(read).collect()
}

/// The secret keys in `file`.
pub(crate) fn identities(file: &Path) -> Result<Vec<Box<dyn Identity + Send + Sync>>, StoreError> {
    let text = credentials::read_secret(file)?;
    let wrong = |problem: String| StoreError::Settings {
        problem: format!("{file:?} holds no secret key of age's ({problem})"),
        remedy: "age-keygen -o FILE makes one".into(),
    };
    let read = IdentityFile::from_buffer(text.as_bytes()).map_err(|e| wrong(e.to_string()))?;
    read.into_identities().map_err(|e| wrong(e.to_string()))
}

/// Why a stream does not open.
#[derive(Debug)]
pub(crate) enum Locked {
    /// It is for others.
    NoKey,
    /// It is not what age writes, or the link failed.
    Other(String),
}

/// The archive in `packed`; encrypted when there are identities for it.
pub(crate) fn unpack<R: Read + 'static>(
    packed: R,
    identities: Option<&[Box<dyn Identity + Send + Sync>]>,
) -> Result<Box<dyn Read + '_>, Locked> {
    let other = |e: &dyn std::fmt::Display| Locked::Other(e.to_string());
    let Some(identities) = identities else {
        return Ok(Box::new(decompress(packed).map_err(|e| other(&e))?));
    };
    let decryptor = Decryptor::new(packed).map_err(|e| other(&e))?;
    let plain = decryptor.decrypt(identities.iter().map(|identity| identity.as_ref() as &dyn Identity));
    let plain = plain.map_err(|e| match e {
        DecryptError::NoMatchingKeys | DecryptError::DecryptionFailed => Locked::NoKey,
        e => other(&e),
    })?;
    Ok(Box::new(decompress(plain).map_err(|e| other(&e))?))
}

fn decompress<R: Read>(packed: R) -> io::Result<impl Read> {
    let mut decoder = zstd::Decoder::new(packed)?.single_frame();
    decoder.window_log_max(LARGEST_WINDOW)?;
    Ok(decoder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use age::secrecy::ExposeSecret;

    fn packed(settings: &Settings, encrypt: bool, content: &[u8]) -> Vec<u8> {
        let packing = Packing::new(settings, encrypt).unwrap();
        packing.pack(Vec::new(), |out| out.write_all(content)).unwrap()
    }

    fn unpacked(
        packed: Vec<u8>,
        identities: Option<&[Box<dyn Identity + Send + Sync>]>,
    ) -> Result<Vec<u8>, String> {
        let mut content = Vec::new();
        let mut reader = unpack(io::Cursor::new(packed), identities).map_err(|e| format!("{e:?}"))?;
        reader.read_to_end(&mut content).map_err(|e| e.to_string())?;
        Ok(content)
    }

    fn key() -> (Settings, Vec<Box<dyn Identity + Send + Sync>>) {
        let key = x25519::Identity::generate();
        let settings = Settings { recipients: vec![key.to_public().to_string()], ..Settings::default() };
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), key.to_string().expose_secret()).unwrap();
        (settings, identities(file.path()).unwrap())
    }

    #[test]
    fn what_is_packed_is_unpacked_and_smaller() {
        let content = b"memory ".repeat(100_000);
        let (settings, keys) = key();
        let plain = packed(&settings, false, &content);
        assert!(plain.len() < content.len() / 10);
        assert_eq!(unpacked(plain, None).unwrap(), content);
        let secret = packed(&settings, true, &content);
        assert_eq!(unpacked(secret, Some(&keys)).unwrap(), content);
    }

    #[test]
    fn nobody_else_opens_it() {
        let (settings, _) = key();
        let (_, others) = key();
        let secret = packed(&settings, true, b"memory");
        assert!(matches!(unpack(io::Cursor::new(secret.clone()), Some(&others)), Err(Locked::NoKey)));
        assert!(unpacked(secret, None).is_err());
        assert!(Packing::new(&Settings::default(), true)
            .unwrap_err()
            .to_string()
            .contains("store.recipients"));
    }

    #[test]
    fn what_is_cut_off_or_changed_is_noticed() {
        let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let (settings, keys) = key();
        for (encrypt, keys) in [(false, None), (true, Some(keys.as_slice()))] {
            let whole = packed(&settings, encrypt, &content);
            for cut in [1, 4, 100, whole.len() / 2] {
                assert!(unpacked(whole[..whole.len() - cut].to_vec(), keys).is_err(), "{cut} bytes of it");
            }
            let mut changed = whole.clone();
            let middle = changed.len() / 2;
            changed[middle] ^= 1;
            assert_ne!(unpacked(changed, keys).ok(), Some(content.clone()));
        }
    }
}
