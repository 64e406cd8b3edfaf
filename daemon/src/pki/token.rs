//! What a new host or operator shows once, in place of a certificate: where to ask, whom to trust there, and a secret.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::peers::check_address;
use super::role::Role;
use super::{PkiError, Place};

/// So often a secret may be wrong before its token is gone.
const ATTEMPTS: u32 = 5;
/// Tokens at a time.
const MOST: usize = 1000;
/// No token is longer.
const LONGEST: usize = 512;

/// A token, as it is handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What the certificate will allow.
    pub role: Role,
    /// Which token it is.
    pub id: [u8; 8],
    /// What proves that it was handed over.
    pub secret: [u8; 32],
    /// SHA-256 of the authority's certificate: who answers must have been signed by it.
    pub ca: [u8; 32],
    /// Who signs.
    pub address: String,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [id, secret, ca] = [&self.id[..], &self.secret, &self.ca].map(hex::encode);
        write!(f, "fm1.{}.{id}.{secret}.{ca}@{}", self.role, self.address)
    }
}

impl FromStr for Token {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        let parse = || {
            let (front, address) = text.split_once('@')?;
            check_address(address).ok()?;
            let [version, role, id, secret, ca] = front.split('.').collect::<Vec<_>>().try_into().ok()?;
            let mut token = Self {
                role: role.parse().ok()?,
                id: [0; 8],
                secret: [0; 32],
                ca: [0; 32],
                address: address.into(),
            };
            hex::decode_to_slice(id, &mut token.id).ok()?;
            hex::decode_to_slice(secret, &mut token.secret).ok()?;
            hex::decode_to_slice(ca, &mut token.ca).ok()?;
            (version == "fm1" && text.len() <= LONGEST).then_some(token)
        };
        parse().ok_or(PkiError::BadToken)
    }
}

/// A token, as the host that signs keeps it: without the secret itself.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    role: Role,
    /// SHA-256 of the secret, which has as many bits itself: nobody finds it from here.
    secret: String,
    /// Seconds since 1970.
    expires: u64,
    wrong: u32,
}

/// The tokens that were given out and not used.
#[derive(Debug, Clone)]
pub struct Tokens {
    directory: PathBuf,
}

impl Tokens {
    /// Those in `place`.
    #[must_use]
    pub fn open(place: &Place) -> Self {
        Self { directory: place.file("tokens") }
    }

    /// Makes one.
    ///
    /// # Errors
    /// When it cannot be written, or there are too many.
    pub fn make(&self, role: Role, lasts: Duration, ca: [u8; 32], address: &str) -> Result<Token, PkiError> {
        crate::files::make_private_dir(&self.directory).map_err(PkiError::io("make", &self.directory))?;
        self.sweep()?;
        let token = Token { role, id: random()?, secret: random()?, ca, address: address.into() };
        let expires = now() + lasts.as_secs();
        self.store(&token.id, &Kept { role, secret: digest(&token.secret), expires, wrong: 0 })?;
        Ok(token)
    }

    /// Uses one up, when what it is used for succeeds. Only one caller at a time: who holds a daemon's
    /// [`super::join::Desk`].
    ///
    /// # Errors
    /// [`PkiError::TokenRefused`] when there is none of that id, the secret is wrong, or it is too late; what `purpose`
    /// failed with.
    pub(super) fn redeem<T>(
        &self,
        id: &[u8; 8],
        secret: &[u8; 32],
        purpose: impl FnOnce(Role) -> Result<T, PkiError>,
    ) -> Result<T, PkiError> {
        let path = self.path(id);
        let kept: Option<Kept> = crate::files::read_json(&path).map_err(PkiError::io("read", &path))?;
        let mut kept = kept.ok_or(PkiError::TokenRefused)?;
        let right = kept.secret == digest(secret);
        kept.wrong += u32::from(!right);
        let remove = || std::fs::remove_file(&path).map_err(|_| PkiError::TokenRefused);
        if kept.expires <= now() || kept.wrong >= ATTEMPTS {
            remove()?;
            return Err(PkiError::TokenRefused);
        }
        if !right {
            self.store(id, &kept)?;
            return Err(PkiError::TokenRefused);
        }
        let outcome = purpose(kept.role)?;
        remove()?;
        Ok(outcome)
    }

    fn store(&self, id: &[u8; 8], kept: &Kept) -> Result<(), PkiError> {
        let path = self.path(id);
        crate::files::replace_json(&path, kept).map_err(PkiError::io("write", &path))
    }

    fn path(&self, id: &[u8; 8]) -> PathBuf {
        self.directory.join(hex::encode(id))
    }

    /// Removes those that expired.
    fn sweep(&self) -> Result<(), PkiError> {
        let failed = || PkiError::io("read", &self.directory);
        let mut left = 0;
        for entry in std::fs::read_dir(&self.directory).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            let kept = crate::files::read_json::<Kept>(&path).ok().flatten();
            if kept.is_none_or(|kept| kept.expires <= now()) {
                let _ = std::fs::remove_file(&path);
            } else {
                left += 1;
            }
        }
        if left >= MOST {
            return Err(failed()(std::io::Error::other("there are too many tokens: wait until some expire")));
        }
        Ok(())
    }
}

fn digest(secret: &[u8]) -> String {
    hex::encode(Sha256::digest(secret))
}

fn random<const N: usize>() -> Result<[u8; N], PkiError> {
    crate::files::random().map_err(PkiError::io("read", Path::new("/dev/urandom")))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn tokens() -> (tempfile::TempDir, Tokens) {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(&Place::at(dir.path()));
        (dir, tokens)
    }

    fn redeem(tokens: &Tokens, token: &Token, secret: [u8; 32]) -> Result<Role, PkiError> {
        tokens.redeem(&token.id, &secret, Ok)
    }

    #[test]
    fn a_token_survives_being_written_down() {
        let (_dir, tokens) = tokens();
        let token = tokens.make(Role::Node, HOUR, [7; 32], "[fe80::1]:7443").unwrap();
        assert_eq!(token.to_string().parse::<Token>().unwrap(), token);
        let text = token.to_string();
        for bad in
            ["", "fm1", &text.replace("fm1", "fm2"), &text[..text.len() - 5], &text.replace("node", "root")]
        {
            assert!(bad.parse::<Token>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_works_once() {
        let (_dir, tokens) = tokens();
        let token = tokens.make(Role::Operator, HOUR, [0; 32], "a:1").unwrap();
        assert!(tokens.redeem(&token.id, &token.secret, |_| Err::<(), _>(PkiError::NoAddress)).is_err());
        assert_eq!(redeem(&tokens, &token, token.secret).unwrap(), Role::Operator);
        assert!(redeem(&tokens, &token, token.secret).is_err());
    }

    #[test]
    fn an_expired_token_does_not_work() {
        let (dir, tokens) = tokens();
        let token = tokens.make(Role::Node, Duration::ZERO, [0; 32], "a:1").unwrap();
        assert!(redeem(&tokens, &token, token.secret).is_err());
        assert_eq!(std::fs::read_dir(dir.path().join("tokens")).unwrap().count(), 0);
    }

    #[test]
    fn a_secret_cannot_be_guessed_for_long() {
        let (_dir, tokens) = tokens();
        let token = tokens.make(Role::Node, HOUR, [0; 32], "a:1").unwrap();
        for _ in 0..ATTEMPTS {
            assert!(redeem(&tokens, &token, [0; 32]).is_err());
        }
        assert!(redeem(&tokens, &token, token.secret).is_err());
    }
}
