//! Settings as a command line of docker, podman or nerdctl, which share most of it. Each value is one word with its option.

use crate::recipe::{Client, Recipe};
use crate::settings::{Mount, Port, Settings};

/// The words after `create`: options, image, command.
pub(crate) fn create(recipe: &Recipe, settings: &Settings, name: &str) -> Vec<String> {
    let mut line = Line::default();
    line.with("name", name);
    // Only what the peer sent, or was here: never what a registry has under that name.
    line.with("pull", "never");
    process(&mut line, settings);
    tags(&mut line, settings);
    network(&mut line, settings);
    settings.mounts.iter().for_each(|mount| mounted(&mut line, mount));
    limits(&mut line, settings);
    rights(&mut line, settings);
    let mut command = settings.command.iter();
    if let Some(program) = command.next() {
        line.with("entrypoint", &entry_point(recipe.client, program));
    }
    line.0.push(recipe.image.name.clone());
    line.0.extend(command.cloned());
    line.0
}

#[derive(Debug, Default)]
pub(crate) struct Line(pub(crate) Vec<String>);

impl Line {
    /// `--option=value`
    pub(crate) fn with(&mut self, option: &str, value: &str) {
        self.0.push(format!("--{option}={value}"));
    }

    /// The same, unless there is no value.
    pub(crate) fn some(&mut self, option: &str, value: &str) {
        if !value.is_empty() {
            self.with(option, value);
        }
    }

    /// The same for a number, of which zero is none.
    pub(crate) fn number<N: Copy + Default + PartialEq + ToString>(&mut self, option: &str, value: N) {
        if value != N::default() {
            self.with(option, &value.to_string());
        }
    }

    /// `--option`, when it is so.
    pub(crate) fn flag(&mut self, option: &str, is: bool) {
        if is {
            self.0.push(format!("--{option}"));
        }
    }

    /// One option for each.
    pub(crate) fn all<S: AsRef<str>>(&mut self, option: &str, values: impl IntoIterator<Item = S>) {
        values.into_iter().for_each(|value| self.with(option, value.as_ref()));
    }
}

/// podman takes a list, and would take a text that looks like one for one.
fn entry_point(client: Client, program: &str) -> String {
    match client {
        Client::Podman => serde_json::Value::from(vec![program]).to_string(),
        _ => program.to_owned(),
    }
}

fn process(line: &mut Line, settings: &Settings) {
    line.all("env", &settings.env);
    line.some("user", &settings.user);
    line.all("group-add", &settings.groups);
    line.some("workdir", &settings.directory);
    line.some("hostname", settings.hostname.as_deref().unwrap_or_default());
    line.some("domainname", &settings.domain);
    line.flag("tty", settings.terminal);
    line.flag("interactive", settings.stdin);
    line.flag("init", settings.init);
    line.flag("rm", settings.auto_remove);
    line.some("restart", &settings.restart);
    line.some("stop-signal", &settings.stop_signal);
    if let Some(seconds) = settings.stop_timeout {
        line.with("stop-timeout", &seconds.to_string());
    }
}

fn tags(line: &mut Line, settings: &Settings) {
    let pair = |(key, value): (&String, &String)| format!("{key}={value}");
    line.all("label", settings.labels.iter().map(pair));
    line.all("annotation", settings.annotations.iter().map(pair));
    line.all("sysctl", settings.sysctls.iter().map(pair));
    line.some("log-driver", &settings.log_driver);
    line.all("log-opt", settings.log_options.iter().map(pair));
}

fn network(line: &mut Line, settings: &Settings) {
    line.all("network", &settings.networks);
    line.all("network-alias", &settings.aliases);
    line.some("ip", settings.address.as_deref().unwrap_or_default());
    line.all("publish", settings.ports.iter().map(published));
    line.all("expose", &settings.exposed);
    line.all("add-host", &settings.hosts);
    line.all("dns", &settings.dns);
    line.all("dns-search", &settings.dns_search);
    line.all("dns-option", &settings.dns_options);
}

fn published(port: &Port) -> String {
    let address = match port.address.contains(':') {
        true => format!("[{}]:", port.address),
        false if port.address.is_empty() => String::new(),
        false => format!("{}:", port.address),
    };
    let host = if port.host == 0 { String::new() } else { port.host.to_string() };
    let separator = if host.is_empty() && address.is_empty() { "" } else { ":" };
    format!("{address}{host}{separator}{}/{}", port.container, port.protocol)
}

fn mounted(line: &mut Line, mount: &Mount) {
    let mode = |read_only: bool| if read_only { ":ro" } else { "" };
    match mount {
        Mount::Volume { name: None, target, .. } => line.with("volume", target),
        Mount::Volume { name: Some(source), target, read_only }
        | Mount::Bind { source, target, read_only } => {
            line.with("volume", &format!("{source}:{target}{}", mode(*read_only)));
        }
        Mount::Tmpfs { target, options } if options.is_empty() => line.with("tmpfs", target),
        Mount::Tmpfs { target, options } => line.with("tmpfs", &format!("{target}:{}", options.join(","))),
    }
}

fn limits(line: &mut Line, settings: &Settings) {
    let limits = &settings.limits;
    line.number("memory", limits.memory);
    line.number("memory-swap", limits.memory_swap);
    line.number("memory-reservation", limits.memory_reservation);
    line.number("shm-size", limits.shm);
    line.number("cpu-shares", limits.cpu_shares);
    line.number("cpu-period", limits.cpu_period);
    line.number("cpu-quota", limits.cpu_quota);
    if limits.nano_cpus > 0 {
        let (whole, part) = (limits.nano_cpus / 1_000_000_000, limits.nano_cpus % 1_000_000_000);
        line.with("cpus", &format!("{whole}.{part:09}"));
    }
    line.some("cpuset-cpus", &limits.cpuset_cpus);
    line.some("cpuset-mems", &limits.cpuset_mems);
    line.number("pids-limit", limits.pids.unwrap_or_default());
    line.number("oom-score-adj", limits.oom_score);
    line.all("ulimit", &limits.ulimits);
}

fn rights(line: &mut Line, settings: &Settings) {
    let rights = &settings.rights;
    line.flag("privileged", rights.privileged);
    line.all("cap-add", &rights.add);
    line.all("cap-drop", &rights.drop);
    if rights.no_new_privileges {
        line.with("security-opt", "no-new-privileges");
    }
    line.flag("read-only", rights.read_only_root);
    line.some("cgroupns", &rights.cgroup_namespace);
    line.some("ipc", &rights.ipc_namespace);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::tests::sample;

    #[test]
    fn every_value_is_one_word_with_its_option() {
        let mut recipe = sample();
        recipe.settings.command = vec!["[sh".into(), "-c".into(), "--privileged; rm -rf /".into()];
        recipe.settings.env = vec!["A=--privileged".into()];
        recipe.settings.limits.nano_cpus = 1_500_000_000;
        recipe.settings.ports = vec![
            Port { container: 80, protocol: "tcp".into(), host: 8080, address: "::1".into() },
            Port { container: 53, protocol: "udp".into(), host: 0, address: String::new() },
        ];
        let line = create(&recipe, &recipe.settings, "web");
        let image = line.iter().position(|word| word == "redis:7").unwrap();
        assert!(line[..image].iter().all(|word| word.starts_with("--")), "{line:?}");
        assert_eq!(line[image + 1..], ["-c", "--privileged; rm -rf /"]);
        for word in
            ["--env=A=--privileged", "--cpus=1.500000000", "--publish=[::1]:8080:80/tcp", "--publish=53/udp"]
        {
            assert!(line.iter().any(|w| w == word), "{word}: {line:?}");
        }
        assert!(line.iter().any(|word| word == "--entrypoint=[sh"));
        recipe.client = Client::Podman;
        let line = create(&recipe, &recipe.settings, "web");
        assert!(line.iter().any(|word| word == r#"--entrypoint=["[sh"]"#));
    }
}
