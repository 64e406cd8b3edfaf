//! crictl and critest, built from the Go module that brings both.
//!
//! critest leaves a container's namespaces unsaid unless a spec is about them, and what is unsaid means that the containers of a
//! pod share their process numbers: FastMig leaves such containers to runc. A kubelet says that each has its own, so critest is
//! built a second time with that one sentence in it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};

use crate::framework::bundle::copy_tree;
use crate::framework::cache::Cache;
use crate::framework::golang;

const MODULE: &str = "sigs.k8s.io/cri-tools";
const VERSION: &str = "v1.36.0";

/// Changes when the way of building does.
const REVISION: u32 = 1;

pub(super) const CRICTL: &str = "crictl";
/// critest as it is, and as a kubelet would ask.
pub(super) const CRITEST: &str = "critest";
pub(super) const CRITEST_OWN_PIDS: &str = "critest-own-pids";

/// Where critest creates containers, and what it says there of their process numbers.
const FILE: &str = "pkg/framework/util.go";
const CREATE: &str = "containerID, err := rc.CreateContainer(ctx, podID, config, podConfig)";
const OWN_PIDS: &str = "
	if config.GetLinux().GetSecurityContext().GetNamespaceOptions() == nil {
		if config.Linux == nil {
			config.Linux = &runtimeapi.LinuxContainerConfig{}
		}
		if config.Linux.SecurityContext == nil {
			config.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{}
		}
		config.Linux.SecurityContext.NamespaceOptions = &runtimeapi.NamespaceOption{
			Pid: runtimeapi.NamespaceMode_CONTAINER,
		}
	}
";

/// The directory that holds the programs, made when the cache has none.
pub(super) fn programs(cache: &Cache) -> Result<PathBuf> {
    cache.get("programs", "cri-tools", &format!("{REVISION} {VERSION} {OWN_PIDS}"), build)
}

fn build(target: &Path) -> Result<()> {
    let source = golang::module(MODULE, VERSION)?;
    fs::create_dir_all(target)?;
    let out = |name: &str| target.join(name).to_string_lossy().into_owned();
    golang::go(&source, ["build", "-o", &out(CRICTL), "./cmd/crictl"])?;
    golang::go(&source, ["test", "-c", "-o", &out(CRITEST), "./cmd/critest"])?;
    let changed = tempfile::tempdir()?;
    let changed = changed.path().join("cri-tools");
    copy_tree(&source, &changed)?;
    make_own_pids(&changed.join(FILE))?;
    golang::go(&changed, ["test", "-c", "-o", &out(CRITEST_OWN_PIDS), "./cmd/critest"])
}

/// Written anew: Go's copies are read-only.
fn make_own_pids(file: &Path) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    fs::remove_file(file)?;
    fs::write(file, with_own_pids(&text)?).with_context(|| format!("cannot write {}", file.display()))
}

fn with_own_pids(text: &str) -> Result<String> {
    let count = text.matches(CREATE).count();
    ensure!(count == 1, "critest creates containers in {count} places of {FILE}, not in one: look again");
    Ok(text.replace(CREATE, &format!("{OWN_PIDS}\n\t{CREATE}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_goes_before_the_only_creation() {
        let text = with_own_pids(&format!("a\n\t{CREATE}\nb")).unwrap();
        assert!(text.starts_with("a\n") && text.ends_with(&format!("{OWN_PIDS}\n\t{CREATE}\nb")), "{text}");
        assert!(with_own_pids("").is_err());
        assert!(with_own_pids(&format!("{CREATE}{CREATE}")).is_err());
    }
}
