//! The secrets that the settings name: files that only root may read.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use base64::Engine;
use serde::Deserialize;

use crate::StoreError;

/// No such file is larger.
const LARGEST: u64 = 1 << 20;

/// What an object store knows us by.
#[derive(Default)]
pub(crate) struct Keys {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) token: Option<String>,
}

/// The content of a file that others can neither read nor change.
pub(crate) fn read_secret(path: &Path) -> Result<String, StoreError> {
    let file = std::fs::File::open(path).map_err(StoreError::io("open", path))?;
    let status = file.metadata().map_err(StoreError::io("read", path))?;
    let ours = rustix::process::geteuid().as_raw();
    if !status.is_file() || (status.uid() != 0 && status.uid() != ours) || status.mode() & 0o077 != 0 {
        return Err(StoreError::Settings {
            problem: format!("others than root can read or change {path:?}"),
            remedy: "chown root and chmod 600 it".into(),
        });
    }
    let mut text = String::new();
    file.take(LARGEST).read_to_string(&mut text).map_err(StoreError::io("read", path))?;
    Ok(text)
}

/// The keys of the profile `default` in a file like `~/.aws/credentials`.
pub(crate) fn object_store(path: &Path) -> Result<Keys, StoreError> {
    let text = read_secret(path)?;
    let mut keys = Keys::default();
    let mut profile = "default";
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            profile = name.trim();
        } else if let (Some((key, value)), "default") = (line.split_once('='), profile) {
            match key.trim() {
                "aws_access_key_id" => keys.id = value.trim().into(),
                "aws_secret_access_key" => keys.secret = value.trim().into(),
                "aws_session_token" => keys.token = Some(value.trim().into()),
                _ => {}
            }
        }
    }
    if keys.id.is_empty() || keys.secret.is_empty() {
        return Err(StoreError::Settings {
            problem: format!("{path:?} has no keys in its profile `default`"),
            remedy: "give aws_access_key_id and aws_secret_access_key there".into(),
        });
    }
    Ok(keys)
}

/// User name and password of `registry` in a file like docker's `config.json`; nothing when it names none.
pub(crate) fn registry(path: &Path, registry: &str) -> Result<Option<(String, String)>, StoreError> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        auths: std::collections::BTreeMap<String, Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        auth: Option<String>,
        username: Option<String>,
        password: Option<String>,
    }
    let wrong = |problem: &str| StoreError::Settings {
        problem: format!("{path:?} is not what docker login writes: {problem}"),
        remedy: r#"it is {"auths": {"HOST:PORT": {"auth": "USER:PASSWORD in base64"}}}"#.into(),
    };
    let config: Config = serde_json::from_str(&read_secret(path)?).map_err(|e| wrong(&e.to_string()))?;
    let Some(entry) = config.auths.get(registry) else { return Ok(None) };
    if let (Some(user), Some(password)) = (&entry.username, &entry.password) {
        return Ok(Some((user.clone(), password.clone())));
    }
    let auth = entry.auth.as_deref().ok_or_else(|| wrong("an entry without auth"))?;
    let auth =
        base64::engine::general_purpose::STANDARD.decode(auth).map_err(|_| wrong("auth is not base64"))?;
    let auth = String::from_utf8(auth).map_err(|_| wrong("auth is not text"))?;
    let (user, password) = auth.split_once(':').ok_or_else(|| wrong("auth has no colon"))?;
    Ok(Some((user.into(), password.into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn the_default_profile_counts() {
        let text = "# mine\n[other]\naws_access_key_id = no\n[default]\naws_access_key_id = A\n \
                    aws_secret_access_key=S/+=\nregion = x\n";
        let keys = object_store(file(text).path()).unwrap();
        assert_eq!((keys.id.as_str(), keys.secret.as_str(), keys.token), ("A", "S/+=", None));
        assert!(object_store(file("[other]\naws_access_key_id = A\n").path()).is_err());
    }

    #[test]
    fn a_registry_is_found_by_its_address() {
        let text =
            r#"{"auths": {"r:5000": {"auth": "dTpwOnc="}, "s": {"username": "a", "password": "b"}}, "x": 1}"#;
        let file = file(text);
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(registry(file.path(), "r:5000").unwrap(), pair("u", "p:w"));
        assert_eq!(registry(file.path(), "s").unwrap(), pair("a", "b"));
        assert_eq!(registry(file.path(), "r").unwrap(), None);
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let file = file("{}");
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = registry(file.path(), "r").unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }
}
