//! The shipped configurations are read by the programs that they are for.

use anyhow::{ensure, Context, Result};

use super::stage::shipped;
use crate::framework::recipe::Equipment;
use crate::framework::{Case, Ctx, Generation};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "install: shipped files are taken (trixie)",
        run: |ctx| taken(ctx, Generation::Trixie).into(),
    },
    Case {
        name: "install: shipped files are taken (forky)",
        run: |ctx| taken(ctx, Generation::Forky).into(),
    },
];

fn taken(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = ctx.session()?.fresh_equipped_host("shipped", generation, Equipment::Clients)?;
    host.install(&crate::framework::dist::build()?)?;
    let drop_in = match generation {
        Generation::Trixie => "containerd-1.7.toml",
        Generation::Forky => "containerd-2.toml",
    };
    host.write_file("/tmp/containerd.toml", shipped(drop_in)?)?;
    let dump = host.cmd(["containerd", "--config", "/tmp/containerd.toml", "config", "dump"]).ok()?;
    for handler in ["fastmig", "fastmig-as-runc", "fastmig-oci", "runc"] {
        ensure!(
            dump.contains(&format!(".runtimes.{handler}]")),
            "containerd has no handler {handler}:\n{dump}"
        );
    }

    host.write_file("/tmp/daemon.json", shipped("docker-daemon.json")?)?;
    host.cmd(["dockerd", "--validate", "--config-file", "/tmp/daemon.json"]).ok()?;

    host.write_file("/etc/containers/containers.conf.d/50-fastmig.conf", shipped("podman.conf")?)?;
    let info = host.cmd(["podman", "--runtime", "fastmig", "info", "--format", "{{.Host.OCIRuntime.Path}}"]);
    let path = info.ok()?;
    ensure!(path.trim() == "/usr/local/bin/fastmig", "podman's fastmig is {path:?}");
    let refused = host.cmd(["podman", "--runtime", "fastmigg", "info"]).output()?;
    ensure!(!refused.status.success(), "podman takes any runtime, so it has shown nothing");

    host.write_file("/tmp/fastmig.toml", shipped("fastmig.toml")?)?;
    host.cmd(["fastmig", "config", "--check", "/tmp/fastmig.toml"]).ok()?;
    host.write_file("/tmp/fastmig.toml", "[limits]\n\ncriu = 0\n")?;
    let refused = host.cmd(["fastmig", "config", "--check", "/tmp/fastmig.toml"]).output()?;
    let said = refused.err();
    ensure!(refused.status.code() == Some(1), "a limit of 0 is taken: {refused:?}");
    ensure!(said.contains("/tmp/fastmig.toml, line 3: limits.criu is 0"), "{said}");

    host.write_file("/etc/fastmig/config.toml", "\n[limits]\ncriu = 77\n")?;
    let settings: serde_json::Value = serde_json::from_str(&host.cmd(["fastmig", "--json", "config"]).ok()?)?;
    let settings = settings["settings"].as_array().context("no settings")?;
    let criu =
        settings.iter().find(|setting| setting["name"] == "limits.criu").context("no limit of CRIU")?;
    ensure!(criu["value"] == 77 && criu["line"] == 3, "{criu}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct RuntimeClass {
        api_version: String,
        kind: String,
        metadata: Metadata,
        handler: String,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Metadata {
        name: String,
    }

    #[test]
    fn every_runtime_class_has_its_handler() {
        let text = shipped("runtimeclass.yaml").unwrap();
        let drop_ins = [shipped("containerd-1.7.toml").unwrap(), shipped("containerd-2.toml").unwrap()];
        let classes: Vec<RuntimeClass> = serde_yaml_ng::Deserializer::from_str(&text)
            .map(|document| RuntimeClass::deserialize(document).unwrap())
            .collect();
        assert_eq!(classes.len(), 3);
        for class in classes {
            assert_eq!((class.api_version.as_str(), class.kind.as_str()), ("node.k8s.io/v1", "RuntimeClass"));
            assert_eq!(class.metadata.name, class.handler);
            let table = format!(".containerd.runtimes.{}]", class.handler);
            assert!(drop_ins.iter().all(|drop_in| drop_in.contains(&table)), "{table}");
        }
    }
}
