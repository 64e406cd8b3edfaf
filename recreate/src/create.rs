//! On the destination: check, make, wait for standby, compare; and the way back.
//!
//! ```text
//!   check ──► volumes ──► create ──► start ──► standby? ──► same as described? ──► Created ──► undo
//!                │           │          │          │                │
//!                └───────────┴──────────┴──────────┴────────────────┴──► what was made is removed
//! ```

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use fastmig_engine::{state, ApplicationState, Container, Key};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::call;
use crate::compare::differences;
use crate::describe::{SHIM, START, STOCK_SHIM, WRAPPER};
use crate::error::Error;
use crate::recipe::{Client, Recipe, Runtime};
use crate::settings::{Mount, Settings};
use crate::{ctr_options, options, policy, valid, Recreator};

/// Where docker's settings are.
const DOCKER_SETTINGS: &str = "/etc/docker/daemon.json";

/// Where the output of containers goes that ctr made; it keeps no logs itself.
const LOGS: &str = "/var/log/fastmig";

/// FastMig's shim.
const SHIM_PROGRAM: &str = "containerd-shim-fastmig-v1";

/// Networks that are there wherever they are asked for; nerdctl makes `bridge` when it is first used.
const EVERYWHERE: &[&str] = &["host", "none", "bridge", "podman"];

/// How long after its start a client may take to tell all of a container: nerdctl knows published ports late.
const SETTLING: Duration = Duration::from_secs(5);

/// How often, and after what pause, a start is tried.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// What was made for a migration, so that it can be taken back, also by a daemon that was started anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Created {
    /// Whose it is.
    pub client: Client,
    /// The engine's namespace of the container.
    pub namespace: String,
    /// Its id.
    pub id: String,
    /// The volumes that were made with it.
    pub volumes: Vec<String>,
}

impl Created {
    /// The container, as the engine knows it.
    ///
    /// # Errors
    /// When the names are none.
    pub fn key(&self) -> Result<Key, Error> {
        Ok(Key::new(&self.namespace, &self.id)?)
    }

    /// The namespace as the client takes it.
    fn clients_namespace(&self) -> &str {
        if self.client.has_namespaces() {
            &self.namespace
        } else {
            ""
        }
    }
}

/// A recipe, checked against this host.
#[derive(Debug)]
struct Plan<'a> {
    recipe: &'a Recipe,
    name: &'a str,
    settings: Settings,
    /// The client's words for the runtime.
    runtime: Vec<String>,
}

impl Recreator {
    /// Whether this host allows the container and has what it needs, its image apart. Asked before anything is sent.
    ///
    /// # Errors
    /// Why not, and what would make it possible.
    pub fn check(&self, recipe: &Recipe, name: &str) -> Result<(), Error> {
        self.plan(recipe, name).map(drop)
    }

    /// Makes the container under this name. Its image must be here. When it returns the container is up in standby.
    ///
    /// # Errors
    /// As [`Recreator::check`], or when its client fails, or when it comes out otherwise than described: nothing is left
    /// of it then.
    pub fn create(&self, recipe: &Recipe, name: &str) -> Result<Created, Error> {
        let plan = self.plan(recipe, name)?;
        if !self.has_image(recipe)? {
            let what = format!("image {} is not on this host", recipe.image.name);
            return Err(Error::Missing { what, remedy: "import it first".into() });
        }
        let namespace = recipe.namespace.clone();
        let mut made = Created { client: recipe.client, namespace, id: String::new(), volumes: Vec::new() };
        self.make(&plan, &mut made).inspect_err(|_| {
            // The first error is the one to tell.
            if let Err(error) = self.remove(&made) {
                tracing::warn!(container = name, %error, "what was made for a migration stays");
            }
        })?;
        Ok(made)
    }

    /// Removes what [`Recreator::create`] made: the container and its volumes, not its image.
    ///
    /// # Errors
    /// When its application runs: then it is no longer a container in waiting. When its client fails.
    pub fn undo(&self, created: &Created) -> Result<(), Error> {
        if self.application(&created.key()?) == Some(ApplicationState::Running) {
            let what = format!("the application in container {} runs", created.id);
            return Err(Error::Missing { what, remedy: "stop it first if it is to go".into() });
        }
        self.remove(created)
    }

    fn plan<'a>(&self, recipe: &'a Recipe, name: &'a str) -> Result<Plan<'a>, Error> {
        recipe.validate()?;
        valid::name("name", name)?;
        let settings = policy::admit(&self.engine.create, recipe.client, &recipe.settings)?;
        let runtime = self.runtime(recipe)?;
        self.check_name(recipe, name)?;
        self.check_networks(recipe, &settings)?;
        self.check_volumes(recipe, &settings)?;
        Ok(Plan { recipe, name, settings, runtime })
    }

    fn make(&self, plan: &Plan<'_>, made: &mut Created) -> Result<(), Error> {
        for volume in self.absent_volumes(plan.recipe, &plan.settings)? {
            let call = self.client(plan.recipe.client, &plan.recipe.namespace);
            call.args(["volume", "create", &volume]).output()?;
            made.volumes.push(volume);
        }
        match plan.recipe.client {
            Client::Ctr => self.run_with_ctr(plan, made)?,
            _ => self.create_and_start(plan, made)?,
        }
        let key = self.wait_for_standby(&made.id)?;
        key.namespace().clone_into(&mut made.namespace);
        self.compare(plan, &key)
    }

    /// The container must come out as it was described.
    fn compare(&self, plan: &Plan<'_>, key: &Key) -> Result<(), Error> {
        let deadline = Instant::now() + SETTLING;
        loop {
            let described = self.recipe(&self.ask(key)?)?;
            let differences = differences(&plan.settings, &described.settings);
            match differences.is_empty() {
                true => return Ok(()),
                false if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(200)),
                false => {
                    let client = plan.recipe.client.program();
                    return Err(Error::Differs { client, differences: differences.join("; ") });
                }
            }
        }
    }

    /// docker, podman and nerdctl.
    fn create_and_start(&self, plan: &Plan<'_>, made: &mut Created) -> Result<(), Error> {
        let Plan { recipe, name, .. } = plan;
        let in_standby = in_standby(&plan.settings);
        // podman's runtime is an option of its own, docker's and nerdctl's one of the command's.
        let podmans = recipe.client == Client::Podman;
        let (before, after): (&[String], &[String]) =
            if podmans { (&plan.runtime, &[]) } else { (&[], &plan.runtime) };
        let client = || self.client(recipe.client, &recipe.namespace).args(before.iter().cloned());
        let words = options::create(recipe, &in_standby, name);
        let told = client().args(["create"]).args(after.iter().cloned()).args(words).output()?;
        let id = told.split_whitespace().next_back().unwrap_or_default();
        valid::name("id", id)?;
        id.clone_into(&mut made.id);
        // containerd starts what nerdctl gave a restart policy, too, and whoever comes second fails.
        let mut tries = if recipe.client == Client::Nerdctl { TRIES } else { 1 };
        loop {
            tries -= 1;
            match client().args(["start", id]).output() {
                Err(Error::Failed { message, .. }) if tries > 0 => {
                    tracing::info!(container = id, message, "trying to start it again");
                    std::thread::sleep(PAUSE);
                }
                told => return told.map(drop),
            }
        }
    }

    fn run_with_ctr(&self, plan: &Plan<'_>, made: &mut Created) -> Result<(), Error> {
        let Plan { recipe, name, .. } = plan;
        let entry_point = self.entry_point(&recipe.namespace, &recipe.image.name)?;
        let words = ctr_options::run(recipe, &in_standby(&plan.settings), name, &entry_point)?;
        let log = format!("--log-uri=file://{LOGS}/{}-{name}.log", recipe.namespace);
        let call = self.ctr(&recipe.namespace).args(["run", "--detach", &log]).args(plan.runtime.clone());
        let told = call.args(words).output();
        // A container of that name which came up meanwhile is somebody else's.
        if !matches!(&told, Err(Error::Failed { message, .. }) if message.contains("already exists")) {
            (*name).clone_into(&mut made.id);
        }
        told.map(drop)
    }

    fn wait_for_standby(&self, id: &str) -> Result<Key, Error> {
        let deadline = Instant::now() + self.limits.command;
        loop {
            let key = state::find(&self.engine, id, None).ok().filter(|key| key.id() == id);
            let application = key.as_ref().and_then(|key| self.application(key));
            let over = Instant::now() >= deadline || application == Some(ApplicationState::Running);
            match (key, application) {
                (Some(key), Some(ApplicationState::Standby)) => return Ok(key),
                (_, application) if over => {
                    let state = application.map_or("unknown to FastMig", ApplicationState::name).into();
                    return Err(Error::NoStandby { id: id.into(), limit: self.limits.command, state });
                }
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn application(&self, key: &Key) -> Option<ApplicationState> {
        Some(Container::open(self.engine.clone(), key).ok()?.status().ok()?.application)
    }

    fn remove(&self, made: &Created) -> Result<(), Error> {
        let namespace = made.clients_namespace();
        if !made.id.is_empty() {
            let gone = match made.client {
                Client::Ctr => self.remove_with_ctr(namespace, &made.id),
                client => {
                    // podman would wait for the application's end first.
                    let at_once: &[&str] = if client == Client::Podman { &["--time=0"] } else { &[] };
                    let call = self.client(client, namespace).args(["rm", "--force", "--volumes"]);
                    call.args(at_once.iter().copied()).args([&made.id]).output().map(drop)
                }
            };
            // One that is not there any more is as good.
            if let Err(error) = gone {
                if self.is_there(made.client, namespace, &made.id)? {
                    return Err(error);
                }
            }
        }
        made.volumes.iter().try_for_each(|volume| {
            self.client(made.client, namespace).args(["volume", "rm", volume]).output().map(drop)
        })
    }

    fn remove_with_ctr(&self, namespace: &str, id: &str) -> Result<(), Error> {
        // There may be no task.
        self.ctr(namespace).args(["tasks", "rm", "--force", id]).succeeds()?;
        self.ctr(namespace).args(["containers", "rm", id]).output().map(drop)
    }

    fn is_there(&self, client: Client, namespace: &str, name: &str) -> Result<bool, Error> {
        let verb = if client == Client::Ctr { "info" } else { "inspect" };
        let object = if client == Client::Ctr { "containers" } else { "container" };
        self.client(client, namespace).args([object, verb, name]).succeeds()
    }

    fn check_name(&self, recipe: &Recipe, name: &str) -> Result<(), Error> {
        match self.is_there(recipe.client, &recipe.namespace, name)? {
            false => Ok(()),
            true => Err(Error::Missing {
                what: format!("{} has a container {name} already", recipe.client.program()),
                remedy: "remove it, choose another name, or leave --create out to migrate into it".into(),
            }),
        }
    }

    fn check_networks(&self, recipe: &Recipe, settings: &Settings) -> Result<(), Error> {
        if recipe.client == Client::Ctr {
            return Ok(());
        }
        let is_everywhere = |network: &&String| EVERYWHERE.contains(&network.as_str());
        for network in settings.networks.iter().filter(|network| !is_everywhere(network)) {
            let call = self.client(recipe.client, &recipe.namespace).args(["network", "inspect", network]);
            if !call.succeeds()? {
                return Err(Error::Missing {
                    what: format!("{} has no network {network}", recipe.client.program()),
                    remedy: format!("`{} network create {network}` makes it", recipe.client.program()),
                });
            }
        }
        Ok(())
    }

    fn check_volumes(&self, recipe: &Recipe, settings: &Settings) -> Result<(), Error> {
        let (all, absent) = (volumes(settings), self.absent_volumes(recipe, settings)?);
        match all.difference(&absent).next() {
            Some(volume) if !self.engine.create.existing_volumes => Err(Error::Missing {
                what: format!("{} has a volume {volume} already", recipe.client.program()),
                remedy: "remove it if it is left from an earlier migration, or allow its use (create.existing_volumes)".into(),
            }),
            _ => Ok(()),
        }
    }

    fn absent_volumes(&self, recipe: &Recipe, settings: &Settings) -> Result<BTreeSet<String>, Error> {
        let mut absent = volumes(settings);
        for volume in volumes(settings) {
            let call = self.client(recipe.client, &recipe.namespace).args(["volume", "inspect", &volume]);
            if call.succeeds()? {
                absent.remove(&volume);
            }
        }
        Ok(absent)
    }

    /// The same way to FastMig as at the source, in the client's words; which program that is, this host decides.
    fn runtime(&self, recipe: &Recipe) -> Result<Vec<String>, Error> {
        let wrapper = || {
            call::find(WRAPPER).ok_or_else(|| Error::Missing {
                what: format!("the program {WRAPPER} is in none of {}", call::PATH),
                remedy: "install FastMig".into(),
            })
        };
        match (recipe.client, &recipe.runtime) {
            (Client::Docker, Runtime::Named(name)) => self.dockers(name),
            (Client::Podman, Runtime::Wrapper) => {
                // By its name podman knows that it speaks JSON.
                let named = self.client(Client::Podman, "").args(["--runtime=fastmig", "info"]).succeeds()?;
                Ok(vec![format!("--runtime={}", if named { WRAPPER.to_owned() } else { wrapper()? })])
            }
            (Client::Nerdctl, Runtime::Wrapper) => Ok(vec![format!("--runtime={}", wrapper()?)]),
            (Client::Ctr, Runtime::Wrapper) => {
                Ok(vec![format!("--runtime={STOCK_SHIM}"), format!("--runc-binary={}", wrapper()?)])
            }
            (Client::Nerdctl | Client::Ctr, Runtime::Shim) if call::find(SHIM_PROGRAM).is_some() => {
                Ok(vec![format!("--runtime={SHIM}")])
            }
            (client, runtime) => Err(Error::Missing {
                what: format!("{} cannot run anything by {runtime:?}", client.program()),
                remedy: "`fastmig install` sets FastMig up".into(),
            }),
        }
    }

    /// A runtime of docker's settings, once it is sure that it is FastMig: any other would start the application.
    fn dockers(&self, name: &str) -> Result<Vec<String>, Error> {
        let told = self.client(Client::Docker, "").args(["info", "--format={{json .Runtimes}}"]).output()?;
        let runtimes: Value = serde_json::from_str(&told).unwrap_or_default();
        let path = runtimes[name]["path"].as_str().map(Path::new);
        let by_path = path.and_then(Path::file_name).is_some_and(|program| program == WRAPPER);
        // docker tells no type.
        let settings = std::fs::read(DOCKER_SETTINGS).unwrap_or_default();
        let settings: Value = serde_json::from_slice(&settings).unwrap_or_default();
        let by_type = !runtimes[name].is_null() && settings["runtimes"][name]["runtimeType"] == SHIM;
        match by_path || by_type {
            true => Ok(vec![format!("--runtime={name}")]),
            false => Err(Error::Missing {
                what: format!("docker has no runtime {name} that is FastMig"),
                remedy: format!(
                    "add it to {DOCKER_SETTINGS} (`fastmig install` does for `fastmig`) and restart docker"
                ),
            }),
        }
    }
}

/// The settings with which the application does not come up.
fn in_standby(settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    settings.annotations.insert(START.into(), "standby".into());
    settings
}

/// The names of its volumes.
fn volumes(settings: &Settings) -> BTreeSet<String> {
    let named = |mount: &Mount| match mount {
        Mount::Volume { name, .. } => name.clone(),
        _ => None,
    };
    settings.mounts.iter().filter_map(named).collect()
}
