//! Settings as a command line of ctr, which makes and starts in one step. What ctr cannot say comes out in the comparison
//! afterwards.

use crate::error::Error;
use crate::fields::MAKE_IT;
use crate::options::Line;
use crate::recipe::Recipe;
use crate::settings::{Mount, Settings};

/// The words after `run`, without those about the runtime: options, image, name, command. ctr puts `entry_point`, the
/// image's, before the command.
pub(crate) fn run(
    recipe: &Recipe,
    settings: &Settings,
    name: &str,
    entry_point: &[String],
) -> Result<Vec<String>, Error> {
    let command = settings.command.strip_prefix(entry_point).ok_or_else(|| Error::Unsupported {
        setting: "a command that does not begin with its image's entry point".into(),
        remedy: MAKE_IT,
    })?;
    let pair = |(key, value): (&String, &String)| format!("{key}={value}");
    let mut line = Line::default();
    line.all("env", &settings.env);
    line.some("user", &settings.user);
    line.some("cwd", &settings.directory);
    line.some("hostname", settings.hostname.as_deref().unwrap_or_default());
    line.all("label", settings.labels.iter().map(pair));
    line.all("annotation", settings.annotations.iter().map(pair));
    line.flag("net-host", settings.networks == ["host"]);
    settings.mounts.iter().for_each(|mount| mounted(&mut line, mount));
    let (limits, rights) = (&settings.limits, &settings.rights);
    line.number("memory-limit", limits.memory);
    line.number("cpu-shares", limits.cpu_shares);
    line.number("cpu-quota", limits.cpu_quota);
    line.number("cpu-period", limits.cpu_period);
    line.some("cpuset-cpus", &limits.cpuset_cpus);
    line.some("cpuset-mems", &limits.cpuset_mems);
    line.flag("read-only", rights.read_only_root);
    line.flag("privileged", rights.privileged);
    line.flag("allow-new-privs", !rights.no_new_privileges);
    line.flag("seccomp", rights.filtered);
    line.all("cap-add", rights.add.iter().map(|capability| format!("CAP_{capability}")));
    line.all("cap-drop", rights.drop.iter().map(|capability| format!("CAP_{capability}")));
    line.0.extend([recipe.image.name.clone(), name.to_owned()]);
    line.0.extend(command.iter().cloned());
    Ok(line.0)
}

fn mounted(line: &mut Line, mount: &Mount) {
    match mount {
        Mount::Bind { source, target, read_only } => {
            let mode = if *read_only { "ro" } else { "rw" };
            line.with("mount", &format!("type=bind,src={source},dst={target},options=rbind:{mode}"));
        }
        Mount::Tmpfs { target, options } => {
            line.with("mount", &format!("type=tmpfs,src=tmpfs,dst={target},options={}", options.join(":")));
        }
        // ctr has none; the comparison tells.
        Mount::Volume { .. } => {}
    }
}
