//! What no recipe may say, whatever this host allows. A recipe comes from a peer.
//!
//! Values end up behind `--option=` on a command line, one word each, so that none can be an option; names of images and
//! containers stand alone and are checked for that too.

use crate::error::Error;
use crate::fields::short;
use crate::recipe::{Recipe, Runtime};
use crate::settings::{Mount, Settings};

/// How many entries a list may have.
const MAX_ENTRIES: usize = 4096;

/// How long one text may be, in bytes: that of the kernel for one argument.
const MAX_TEXT: usize = 128 * 1024;

/// Annotations with these beginnings speak to runtimes and engines: a peer could reach the host by them.
const RESERVED_ANNOTATIONS: &[&str] = &[
    "run.oci.",
    "module.wasm",
    "org.systemd.",
    "org.criu.",
    "org.opencontainers.runc",
    "io.podman.",
    "io.container",
    "io.kubernetes.",
    "io.katacontainers.",
    "com.github.containers.",
    "nerdctl/",
    "containerd.io/",
    "fastmig.dev/",
];

/// Those of FastMig's annotations that say how an application travels.
const OWN_ANNOTATIONS: &[&str] =
    &["fastmig.dev/mode", "fastmig.dev/tcp", "fastmig.dev/io-uring", "fastmig.dev/after-checkpoint"];

/// Labels that containerd and nerdctl act on: some name programs that they start.
const RESERVED_LABELS: &[&str] =
    &["nerdctl/", "containerd.io/", "io.containerd.", "io.cri-containerd", "io.podman."];

/// The kubelet's and docker's: they remove there what they do not know.
const OTHERS_NAMESPACES: &[&str] = &["k8s.io", "moby", "plugins.moby", "buildkit"];

/// Log drivers that write on this host, by the client's own means.
pub(crate) const LOG_DRIVERS: &[&str] =
    &["json-file", "local", "journald", "k8s-file", "none", "passthrough"];
pub(crate) const LOG_OPTIONS: &[&str] =
    &["max-size", "max-file", "max-buffer-size", "mode", "compress", "tag", "labels", "env"];

type Rule = Result<(), Error>;

fn bad(what: &'static str, value: &str, why: &'static str) -> Error {
    Error::BadRecipe { what, value: short(value), why }
}

fn require(is: bool, what: &'static str, value: &str, why: &'static str) -> Rule {
    if is {
        Ok(())
    } else {
        Err(bad(what, value, why))
    }
}

pub(crate) fn recipe(recipe: &Recipe) -> Rule {
    name("name", &recipe.name)?;
    match recipe.client.has_namespaces() {
        true => namespace(&recipe.namespace)?,
        false => require(recipe.namespace.is_empty(), "namespace", &recipe.namespace, "its client has none")?,
    }
    image_name(&recipe.image.name)?;
    digest("image digest", &recipe.image.digest)?;
    require(!recipe.image.layers.is_empty(), "image layers", "", "an image has layers")?;
    list("image layers", &recipe.image.layers, |layer| digest("image layer", layer))?;
    if let Runtime::Named(runtime) = &recipe.runtime {
        name("runtime", runtime)?;
    }
    settings(&recipe.settings)
}

/// A container's, network's or volume's name, as all clients take it.
pub(crate) fn name(what: &'static str, text: &str) -> Rule {
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    let rest = text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    require(
        first && rest && text.len() <= 128,
        what,
        text,
        "it must be letters, digits, dots, dashes and underscores, at most 128, and begin with a letter or digit",
    )
}

/// One of containerd's that no daemon takes for its own.
fn namespace(text: &str) -> Rule {
    name("namespace", text)?;
    let taken = OTHERS_NAMESPACES.contains(&text);
    require(!taken, "namespace", text, "what is in it belongs to a daemon of its own")
}

/// A reference such as `registry:5000/team/app:1@sha256:...`, or a digest.
pub(crate) fn image_name(text: &str) -> Rule {
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    let rest = text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-:/@+".contains(c));
    require(first && rest && text.len() <= 512, "image name", text, "it is no reference of an image")
}

fn digest(what: &'static str, text: &str) -> Rule {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    let hex = digits.len() == 64 && digits.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    require(hex, what, text, "it must be sha256: and 64 hexadecimal digits")
}

fn list(what: &'static str, entries: &[String], rule: impl Fn(&str) -> Rule) -> Rule {
    require(entries.len() <= MAX_ENTRIES, what, &entries.len().to_string(), "there are too many")?;
    entries.iter().try_for_each(|entry| rule(entry))
}

/// A text in one argument.
fn text(what: &'static str, text: &str) -> Rule {
    require(!text.contains('\0') && text.len() <= MAX_TEXT, what, text, "it is too long, or has a zero in it")
}

/// A word in one argument, where commas, quotes and lines would have a meaning.
fn word(what: &'static str, word: &str) -> Rule {
    let plain = !word.chars().any(|c| c.is_control() || ",\"'\\`$ ".contains(c));
    require(
        plain && word.len() <= 4096,
        what,
        word,
        "it has characters that may have a meaning to the client",
    )
}

fn settings(settings: &Settings) -> Rule {
    require(settings.command.first().is_some_and(|c| !c.is_empty()), "command", "", "there is none")?;
    list("command", &settings.command, |word| text("command", word))?;
    list("env", &settings.env, |entry| {
        text("env", entry)?;
        let named = entry.split_once('=').is_some_and(|(name, _)| !name.is_empty());
        require(named, "env", entry, "it must be NAME=VALUE")
    })?;
    for (what, value) in [
        ("user", &settings.user),
        ("domain", &settings.domain),
        ("stop signal", &settings.stop_signal),
        ("cpus", &settings.limits.cpuset_cpus),
        ("memory nodes", &settings.limits.cpuset_mems),
    ] {
        let plain = value.chars().all(|c| c.is_ascii_alphanumeric() || "_.:+,$-".contains(c));
        require(plain && value.len() <= 256, what, value, "it has characters that no such value has")?;
    }
    if let Some(hostname) = &settings.hostname {
        name("hostname", hostname)?;
    }
    if !settings.directory.is_empty() {
        path("directory", &settings.directory)?;
    }
    tags(settings)?;
    network(settings)?;
    settings.mounts.iter().try_for_each(mount)?;
    require(settings.mounts.len() <= MAX_ENTRIES, "mounts", "", "there are too many")?;
    rights(settings)?;
    restart(&settings.restart)
}

fn tags(settings: &Settings) -> Rule {
    let reserved = |key: &str, prefixes: &[&str]| prefixes.iter().any(|prefix| key.starts_with(prefix));
    for (key, value) in &settings.labels {
        text("label", value)?;
        let free = !key.is_empty() && !key.contains('=') && !reserved(key, RESERVED_LABELS);
        require(free, "label", key, "it is reserved to the clients")?;
        text("label", key)?;
    }
    for (key, value) in &settings.annotations {
        text("annotation", value)?;
        let free = !key.is_empty()
            && !key.contains('=')
            && (OWN_ANNOTATIONS.contains(&key.as_str()) || !reserved(key, RESERVED_ANNOTATIONS));
        require(free, "annotation", key, "it is reserved to runtimes and clients")?;
        text("annotation", key)?;
    }
    for (key, value) in &settings.sysctls {
        word("sysctl", key)?;
        require(!key.is_empty() && !key.contains('='), "sysctl", key, "it is no name")?;
        text("sysctl", value)?;
    }
    let driver = settings.log_driver.as_str();
    require(
        driver.is_empty() || LOG_DRIVERS.contains(&driver),
        "log driver",
        driver,
        "only local ones are allowed",
    )?;
    for (key, value) in &settings.log_options {
        require(
            LOG_OPTIONS.contains(&key.as_str()),
            "log option",
            key,
            "only those of local drivers are allowed",
        )?;
        word("log option", value)?;
    }
    let entries = settings.labels.len() + settings.annotations.len() + settings.sysctls.len();
    require(entries <= MAX_ENTRIES, "labels", &entries.to_string(), "there are too many")
}

fn network(settings: &Settings) -> Rule {
    list("networks", &settings.networks, |network| name("network", network))?;
    let alone = settings.networks.iter().any(|network| network == "host" || network == "none");
    require(!alone || settings.networks.len() == 1, "networks", "host", "host and none stand alone")?;
    list("aliases", &settings.aliases, |alias| name("alias", alias))?;
    for (what, entries) in [
        ("hosts", &settings.hosts),
        ("dns", &settings.dns),
        ("dns search", &settings.dns_search),
        ("dns options", &settings.dns_options),
        ("exposed ports", &settings.exposed),
    ] {
        list(what, entries, |entry| word(what, entry))?;
    }
    settings.address.iter().try_for_each(|address| is_address("address", address))?;
    require(settings.ports.len() <= MAX_ENTRIES, "ports", "", "there are too many")?;
    settings.ports.iter().try_for_each(|port| {
        let known = ["tcp", "udp", "sctp"].contains(&port.protocol.as_str());
        require(known, "protocol", &port.protocol, "it must be tcp, udp or sctp")?;
        match port.address.is_empty() {
            true => Ok(()),
            false => is_address("port address", &port.address),
        }
    })
}

fn is_address(what: &'static str, text: &str) -> Rule {
    require(text.parse::<std::net::IpAddr>().is_ok(), what, text, "it is no IP address")
}

fn mount(mount: &Mount) -> Rule {
    path("mount target", mount.target())?;
    match mount {
        Mount::Volume { name: Some(volume), .. } => name("volume", volume),
        Mount::Volume { name: None, .. } => Ok(()),
        Mount::Bind { source, .. } => path("bind mount", source),
        Mount::Tmpfs { options, .. } => list("tmpfs options", options, |option| word("tmpfs option", option)),
    }
}

/// An absolute path that does not climb, and that no mount option's syntax takes apart.
fn path(what: &'static str, text: &str) -> Rule {
    let climbs = text.split('/').any(|part| part == "..");
    let plain = !text.chars().any(|c| c.is_control() || ",:\"\\".contains(c));
    require(
        text.starts_with('/') && !climbs && plain && text.len() <= 4096,
        what,
        text,
        "it must be an absolute path without .., commas, colons, quotes and backslashes",
    )
}

fn rights(settings: &Settings) -> Rule {
    let rights = &settings.rights;
    for capability in rights.add.iter().chain(&rights.drop) {
        let plain = capability.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        require(plain && capability.len() <= 64, "capability", capability, "it is no capability")?;
    }
    let groups = &settings.groups;
    list("groups", groups, |group| name("group", group))?;
    for (what, namespace, allowed) in [
        ("cgroup namespace", &rights.cgroup_namespace, ["", "host", "private"]),
        ("ipc namespace", &rights.ipc_namespace, ["", "shareable", "private"]),
    ] {
        require(allowed.contains(&namespace.as_str()), what, namespace, "there is no such kind")?;
    }
    list("ulimits", &settings.limits.ulimits, |ulimit| {
        let plain = ulimit.chars().all(|c| c.is_ascii_alphanumeric() || "_=:-".contains(c));
        require(plain && ulimit.contains('='), "ulimit", ulimit, "it must be NAME=SOFT:HARD")
    })
}

fn restart(text: &str) -> Rule {
    let count = text.strip_prefix("on-failure:").is_some_and(|count| count.parse::<u32>().is_ok());
    let known = ["", "no", "always", "unless-stopped", "on-failure"].contains(&text) || count;
    require(known, "restart policy", text, "there is no such policy")
}

#[cfg(test)]
mod tests {
    use crate::recipe::tests::sample;
    use crate::recipe::{Client, Recipe, Runtime};
    use crate::settings::{Mount, Port};

    fn refused(what: &str, change: impl Fn(&mut Recipe)) {
        let mut recipe = sample();
        change(&mut recipe);
        let error = recipe.validate().map(|()| recipe).unwrap_err().to_string();
        assert!(error.contains(what), "{what}: {error}");
    }

    #[test]
    fn nothing_becomes_an_option_a_path_or_another_ones_name() {
        sample().validate().unwrap();
        refused("name", |r| r.name = "--privileged".into());
        refused("name", |r| r.name = "a/../b".into());
        refused("image name", |r| r.image.name = "-v/:/host".into());
        refused("image name", |r| r.image.name = "a b".into());
        refused("image digest", |r| r.image.digest = "sha256:0".into());
        refused("image layers", |r| r.image.layers.clear());
        refused("runtime", |r| r.runtime = Runtime::Named("/tmp/evil".into()));
        refused("namespace", |r| r.namespace = "moby".into());
        refused("namespace", |r| r.client = Client::Ctr);
        refused("namespace", |r| (r.client, r.namespace) = (Client::Ctr, "k8s.io".into()));
        refused("command", |r| r.settings.command.clear());
        refused("env", |r| r.settings.env = vec!["SECRET".into()]);
        refused("hostname", |r| r.settings.hostname = Some("a b".into()));
        refused("restart", |r| r.settings.restart = "on-failure:x".into());
        refused("capability", |r| r.settings.rights.add = vec!["ALL,SYS".into()]);
        refused("network", |r| r.settings.networks = vec!["container:x".into()]);
        refused("networks", |r| r.settings.networks = vec!["host".into(), "x".into()]);
        refused("log driver", |r| r.settings.log_driver = "syslog".into());
        refused("port address", |r| {
            let address = "evil".into();
            r.settings.ports = vec![Port { container: 1, protocol: "tcp".into(), host: 1, address }];
        });
    }

    #[test]
    fn words_to_runtimes_and_clients_are_refused() {
        for key in
            ["run.oci.handler", "fastmig.dev/start", "io.podman.annotations.privileged", "nerdctl/mounts"]
        {
            refused("annotation", |r| drop(r.settings.annotations.insert(key.into(), "x".into())));
        }
        refused("label", |r| {
            let program = "binary:///bin/sh".into();
            r.settings.labels.insert("containerd.io/restart.loguri".into(), program);
        });
        let mut recipe = sample();
        recipe.settings.annotations.insert("fastmig.dev/tcp".into(), "keep".into());
        recipe.validate().unwrap();
    }

    #[test]
    fn mounts_do_not_climb_or_say_more_than_a_path() {
        for source in ["relative", "/srv/../etc", "/a,dst=/b", "/a:/b"] {
            refused("bind mount", |r| {
                let target = "/x".into();
                r.settings.mounts = vec![Mount::Bind { source: source.into(), target, read_only: true }];
            });
        }
        refused("volume", |r| {
            let target = "/x".into();
            r.settings.mounts = vec![Mount::Volume { name: Some("/etc".into()), target, read_only: true }];
        });
    }
}
