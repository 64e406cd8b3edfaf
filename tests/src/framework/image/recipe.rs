//! What is in each image, and how it starts.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use anyhow::{bail, Context, Result};
use serde_json::{json, Value};

use crate::framework::recipe::Recipe;

/// A tree that images start from.
#[derive(Debug)]
pub struct Base {
    /// Its name in the cache.
    pub name: &'static str,
    /// How it is made.
    pub recipe: Recipe,
}

/// One image.
#[derive(Debug)]
pub struct App {
    /// Its name.
    pub name: &'static str,
    pub(crate) base: &'static Base,
    pub(crate) packages: &'static [&'static str],
    /// Shell scripts in the tree, before and after the packages are installed.
    pub(crate) before: &'static str,
    pub(crate) after: &'static str,
    pub(crate) cmd: &'static [&'static str],
    pub(crate) user: &'static str,
    pub(crate) env: &'static [&'static str],
}

/// Debian as its slim images have it: without documentation.
pub(super) static DEBIAN: Base = Base {
    name: "image-debian",
    recipe: Recipe {
        suite: "trixie",
        variant: "minbase",
        packages: Cow::Borrowed(&[]),
        options: &[
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/info/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            "--dpkgopt=path-exclude=/usr/share/man/*",
        ],
    },
};

/// busybox alone, with a link for each of its commands.
pub(super) static BUSYBOX: Base = Base {
    name: "image-busybox",
    recipe: Recipe {
        suite: "trixie",
        variant: "extract",
        packages: Cow::Borrowed(&["busybox-static"]),
        options: &[
            "--extract-hook=cd \"$1\" && mkdir -p proc sys dev run root tmp var/tmp home usr/sbin etc",
            "--extract-hook=cd \"$1\" && chmod 1777 tmp var/tmp && ln -s usr/bin bin && ln -s usr/sbin sbin",
            "--extract-hook=chroot \"$1\" /usr/bin/busybox --install -s /usr/bin",
            "--extract-hook=echo root:x:0:0:root:/root:/bin/sh >\"$1/etc/passwd\"",
            "--extract-hook=echo root:x:0: >\"$1/etc/group\"",
            "--extract-hook=rm -rf \"$1/usr/share\"",
        ],
    },
};

pub(super) const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What most images have nothing to say about.
pub(crate) const PLAIN: App =
    App { name: "", base: &DEBIAN, packages: &[], before: "", after: "", cmd: &[], user: "", env: &[] };

/// As the official image does: no cluster by the package, but one in a directory of its own. The socket is in `/tmp`, for
/// `ctr` mounts an empty `/run`.
const INIT_POSTGRES: &str = r"
data=/var/lib/postgresql/data
install -d -o postgres -g postgres -m 700 $data
bin=$(echo /usr/lib/postgresql/*/bin)
setpriv --reuid postgres --regid postgres --clear-groups $bin/initdb -D $data --auth=trust --encoding=UTF8 --no-sync
echo 'host all all all trust' >>$data/pg_hba.conf
echo listen_addresses = \'*\' >>$data/postgresql.conf
echo unix_socket_directories = \'/tmp\' >>$data/postgresql.conf
";

/// The package's alternatives insist on a directory for manuals that the base leaves out.
pub(super) const JAVA_MANUALS: &str = "mkdir -p /usr/share/man/man1";

/// All images.
pub static APPS: &[App] = &[
    App { name: "busybox", base: &BUSYBOX, cmd: &["sh"], ..PLAIN },
    App {
        name: "redis",
        packages: &["redis-server", "redis-tools"],
        cmd: &["redis-server", "--save", "", "--protected-mode", "no"],
        ..PLAIN
    },
    App { name: "nginx", packages: &["nginx", "curl"], cmd: &["nginx", "-g", "daemon off;"], ..PLAIN },
    App {
        name: "postgres",
        packages: &["postgresql"],
        before: "mkdir -p /etc/postgresql-common && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf",
        after: INIT_POSTGRES,
        cmd: &["/usr/lib/postgresql/*/bin/postgres", "-D", "/var/lib/postgresql/data"],
        user: "postgres",
        env: &["PGDATA=/var/lib/postgresql/data", "PGHOST=/tmp"],
        ..PLAIN
    },
    App { name: "python", packages: &["python3"], cmd: &["python3"], ..PLAIN },
    App { name: "node", packages: &["nodejs"], cmd: &["node"], ..PLAIN },
    App { name: "steady", packages: &["iperf3", "redis-server", "sysbench"], cmd: &["sh"], ..PLAIN },
    App { name: "java", packages: &["default-jre-headless"], before: JAVA_MANUALS, cmd: &["java"], ..PLAIN },
];

impl App {
    /// The image's configuration; `tree` is what its packages brought.
    pub(crate) fn config(&self, tree: &Path) -> Result<Value> {
        let cmd = self.cmd.iter().map(|word| expand(tree, word)).collect::<Result<Vec<_>>>()?;
        let env: Vec<&str> = std::iter::once(PATH).chain(self.env.iter().copied()).collect();
        let mut config = json!({ "Env": env, "Cmd": cmd, "WorkingDir": "/" });
        if !self.user.is_empty() {
            config["User"] = json!(self.user);
        }
        Ok(config)
    }
}

/// Puts the only entry of a directory in place of `/*/`: a version number that Debian chose.
fn expand(tree: &Path, word: &str) -> Result<String> {
    let Some((dir, rest)) = word.split_once("/*/") else { return Ok(word.to_owned()) };
    let entries =
        fs::read_dir(tree.join(dir.trim_start_matches('/'))).with_context(|| format!("no {dir}"))?;
    let names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let [name] = names.as_slice() else { bail!("{} entries in {dir}, not one", names.len()) };
    Ok(format!("{dir}/{name}/{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_number_is_found_and_an_ambiguous_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("usr/lib/x/17")).unwrap();
        assert_eq!(expand(dir.path(), "/usr/lib/x/*/bin/x").unwrap(), "/usr/lib/x/17/bin/x");
        assert_eq!(expand(dir.path(), "daemon off;").unwrap(), "daemon off;");
        fs::create_dir_all(dir.path().join("usr/lib/x/18")).unwrap();
        assert!(expand(dir.path(), "/usr/lib/x/*/bin/x").is_err());
    }
}
