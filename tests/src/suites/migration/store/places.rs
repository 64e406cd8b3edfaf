//! Places for checkpoints, and the settings with which both hosts reach them.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{json, Value};

use crate::framework::bundle::copy_tree;
use crate::framework::cache::Cache;
use crate::framework::process::wait_until;
use crate::framework::recipe::Recipe;
use crate::framework::{golang, rootfs, Ctx, Host};
use crate::suites::migration::stage::pair;

const SETTINGS: &str = "/etc/fastmig/config.toml";
const IDENTITY: &str = "/etc/fastmig/identity";
const S3_KEYS: &str = "/etc/fastmig/s3-keys";
const REGISTRY_KEYS: &str = "/etc/fastmig/registry.json";

/// Made for these tests by age-keygen: it opens nothing else.
const RECIPIENT: &str = "age17ec8jszxv0vg9nrfeetj2gmytjrtl5lat8ccpx2qt4ftqcykgc5qntu6fe";
const SECRET: &str = "AGE-SECRET-KEY-1QKK6KPU9E8H87J4MTCSUF96V78LSQYYAQJ0LS8PRTLDD0SCALPQSC4XZ8J";

const REGISTRY_PORT: u16 = 5000;
const REGISTRY: &str = "/usr/local/bin/docker-registry";
const REGISTRY_CONFIG: &str = "/etc/docker-registry.yml";
/// Of user `store` with the password `store-password`.
const REGISTRY_USERS: &str = "store:$2b$05$abcdefghijklmnopqrstuumGUScXIoQkNvIDfVsgl/XwysOoEcHnq\n";
const REGISTRY_AUTH: &str = "c3RvcmU6c3RvcmUtcGFzc3dvcmQ=";

const S3_PORT: u16 = 7070;
const S3_MODULE: &str = "github.com/versity/versitygw";
const S3_VERSION: &str = "v1.8.0";
const S3_DATA: &str = "/var/lib/s3";
const S3_BUCKET: &str = "checkpoints";

const START_LIMIT: Duration = Duration::from_secs(20);

/// A kind of place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A directory that both hosts see.
    Directory,
    /// A registry on host a.
    Registry,
    /// An object store on host a.
    Bucket,
}

/// Two hosts, and a place that both reach. With the guard go the settings, the place and what runs for it.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) a: Arc<Host>,
    pub(super) b: Arc<Host>,
    kind: Kind,
}

impl Stage {
    pub(super) fn new(ctx: &Ctx, kind: Kind) -> Result<Self> {
        let (a, b) = pair(ctx)?;
        let stage = Self { a, b, kind };
        stage.clear()?;
        for host in [&stage.a, &stage.b] {
            stage.configure(host)?;
        }
        match kind {
            Kind::Directory => stage.a.cmd(["mkdir", "-m", "700", &stage.place()]).ok().map(drop)?,
            Kind::Registry => stage.start_registry()?,
            Kind::Bucket => stage.start_s3()?,
        }
        Ok(stage)
    }

    /// The place, without a slash at its end.
    pub(super) fn place(&self) -> String {
        match self.kind {
            Kind::Directory => "/shared/checkpoints-at-rest".into(),
            Kind::Registry => format!("oci://{}:{REGISTRY_PORT}/backup/redis", self.a.address()),
            Kind::Bucket => format!("s3://{S3_BUCKET}/backup"),
        }
    }

    /// A checkpoint there.
    pub(super) fn location(&self, name: &str) -> String {
        let separator = if self.kind == Kind::Registry { ':' } else { '/' };
        format!("{}{separator}{name}", self.place())
    }

    /// Where host a keeps what is stored.
    pub(super) fn data(&self) -> String {
        match self.kind {
            Kind::Directory => self.place(),
            Kind::Registry => "/var/lib/registry".into(),
            Kind::Bucket => format!("{S3_DATA}/{S3_BUCKET}"),
        }
    }

    /// The checkpoints that host b sees there.
    pub(super) fn list(&self) -> Result<Vec<Value>> {
        let answer = self.b.cmd(["fastmig", "--json", "checkpoints", "list", &self.place()]).ok()?;
        serde_json::from_str(&answer).with_context(|| format!("no list: {answer}"))
    }

    pub(super) fn names(&self) -> Result<Vec<String>> {
        Ok(self.list()?.iter().filter_map(|label| Some(label["name"].as_str()?.to_owned())).collect())
    }

    fn configure(&self, host: &Host) -> Result<()> {
        let address = self.a.address();
        let settings = format!(
            "[store]\nlocation = {:?}\nrecipients = [{RECIPIENT:?}]\nidentity_file = {IDENTITY:?}\ntimeout = 20\n\
             s3_endpoint = \"http://{address}:{S3_PORT}\"\ns3_credentials_file = {S3_KEYS:?}\n\
             registry_credentials_file = {REGISTRY_KEYS:?}\nplain_http = [\"{address}:{REGISTRY_PORT}\"]\n",
            self.place()
        );
        let keys = "[default]\naws_access_key_id = store\naws_secret_access_key = store-password\n";
        let users = json!({ "auths": { format!("{address}:{REGISTRY_PORT}"): { "auth": REGISTRY_AUTH } } });
        let files =
            [(IDENTITY, SECRET.to_owned()), (S3_KEYS, keys.into()), (REGISTRY_KEYS, users.to_string())];
        host.write_file(SETTINGS, settings)?;
        for (path, content) in files {
            host.write_file(path, content)?;
            host.cmd(["chmod", "600", path]).ok()?;
        }
        Ok(())
    }

    fn start_registry(&self) -> Result<()> {
        let recipe = Recipe {
            suite: "trixie",
            variant: "extract",
            packages: Cow::Borrowed(&["docker-registry"]),
            options: &[],
        };
        let package = rootfs::root(&self.a.cache, "docker-registry", &recipe)?;
        copy_tree(&package.join("usr/bin/docker-registry"), &self.a.outside(REGISTRY))?;
        self.a.write_file("/etc/docker-registry.users", REGISTRY_USERS)?;
        let config = json!({
            "version": "0.1",
            "http": { "addr": format!("0.0.0.0:{REGISTRY_PORT}") },
            "auth": { "htpasswd": { "realm": "store", "path": "/etc/docker-registry.users" } },
            "storage": { "filesystem": { "rootdirectory": self.data() }, "delete": { "enabled": true } },
        });
        // YAML takes JSON for what it is.
        self.a.write_file(REGISTRY_CONFIG, config.to_string())?;
        self.serve("registry", &format!("{REGISTRY} serve {REGISTRY_CONFIG}"), REGISTRY_PORT)
    }

    fn start_s3(&self) -> Result<()> {
        let program = s3_server(&self.a.cache)?;
        copy_tree(&program, &self.a.outside("/usr/local/bin/versitygw"))?;
        self.a.cmd(["mkdir", "-p", &self.data(), "/var/lib/metadata-of-s3"]).ok()?;
        let command = format!(
            "versitygw --access store --secret store-password --port 0.0.0.0:{S3_PORT} --quiet \
             posix --sidecar /var/lib/metadata-of-s3 {S3_DATA}"
        );
        self.serve("s3", &command, S3_PORT)
    }

    /// Starts a server on host a and waits until it listens.
    fn serve(&self, name: &str, command: &str, port: u16) -> Result<()> {
        let log = format!("/var/log/{name}.log");
        let script =
            format!("setsid sh -c 'echo $$ >/run/{name}.pid; exec {command}' >{log} 2>&1 </dev/null &");
        self.a.sh(&script).ok()?;
        let listens = || {
            let connect = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
            self.a.cmd(["bash", "-c", &connect]).ok().is_ok()
        };
        wait_until(START_LIMIT, listens).with_context(|| {
            let log = self.a.cmd(["tail", "-n", "5", &log]).ok().unwrap_or_default();
            format!("{name} does not listen; its log ends:\n{log}")
        })
    }

    /// Starts the registry once more, with what it had.
    pub(super) fn start_again(&self) -> Result<()> {
        self.start_registry()
    }

    /// Ends the servers, if they run.
    pub(super) fn stop(&self) -> Result<()> {
        let script = "for name in registry s3; do
            test -e /run/$name.pid || continue
            pid=$(cat /run/$name.pid); rm /run/$name.pid
            kill -9 $pid 2>/dev/null; while test -d /proc/$pid; do sleep 0.05; done
        done";
        self.a.sh(script).ok().map(drop)
    }

    fn clear(&self) -> Result<()> {
        self.stop()?;
        for host in [&self.a, &self.b] {
            host.cmd(["rm", "-rf", SETTINGS, IDENTITY, S3_KEYS, REGISTRY_KEYS, "/var/lib/fastmig/staging"])
                .ok()?;
        }
        self.a
            .cmd([
                "rm",
                "-rf",
                "/shared/checkpoints-at-rest",
                "/var/lib/registry",
                S3_DATA,
                "/var/lib/metadata-of-s3",
            ])
            .ok()
            .map(drop)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(e) = self.clear() {
            eprintln!("    the place for checkpoints stays: {e:#}");
        }
    }
}

/// A gateway that speaks S3 in front of a directory: Debian has no S3 server that is small.
fn s3_server(cache: &Cache) -> Result<PathBuf> {
    let programs = cache.get("programs", "versitygw", S3_VERSION, |target| {
        std::fs::create_dir_all(target)?;
        let source = golang::module(S3_MODULE, S3_VERSION)?;
        let out = target.join("versitygw").to_string_lossy().into_owned();
        golang::go(&source, ["build", "-o", &out, "./cmd/versitygw"])
    })?;
    Ok(programs.join("versitygw"))
}
