//! Real applications, unmodified: how long a client outside gets no answer.
//!
//! The client asks on a connection of its own each time. FastMig's moves it asks throughout; what other tools move is asked until
//! the order is given, for they refuse a process with a connection: their start is in their gap.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{anyhow, Context, Result};
use fastmig_tests::apps;
use fastmig_tests::apps::container::{Container, Setup};
use fastmig_tests::apps::migrating;
use fastmig_tests::framework::image::reference;
use fastmig_tests::framework::process::wait_until;
use fastmig_tests::framework::{fixture, Host};

use super::clients::{Client, DOCKER, PODMAN};
use super::tool::{Hosts, Started};
use super::{GAP, TOTAL};
use crate::bench::Bench;
use crate::network;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(1);
/// An answer that takes longer is as good as none.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
const UP_LIMIT: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(180);

/// An application, and how it is asked whether it lives.
struct Application {
    work: String,
    name: &'static str,
    command: Vec<String>,
    options: Vec<String>,
    port: u16,
    question: &'static [u8],
    /// Run on its host once it is up.
    fill: String,
    /// Whether processes of other users than root are in it.
    has_users: bool,
}

fn applications(quick: bool) -> Vec<Application> {
    let plain = |name: &'static str, port, question| Application {
        work: name.to_owned(),
        name,
        command: apps::named(name).map(|app| app.command()).unwrap_or_default(),
        options: apps::named(name).map(|app| app.options()).unwrap_or_default(),
        port,
        question,
        fill: "true".to_owned(),
        has_users: matches!(name, "nginx" | "postgres"),
    };
    let mib = if quick { 256 } else { 1024 };
    let mut redis = plain("redis", 6379, b"PING\r\n");
    redis.work = format!("redis{mib}");
    let command = ["redis-server", "--save", "", "--protected-mode", "no", "--enable-debug-command", "yes"];
    redis.command = command.map(str::to_owned).to_vec();
    redis.fill = format!("redis-cli debug populate {} key 4096", mib * 256);
    let http = b"GET / HTTP/1.0\r\n\r\n";
    // Whether it speaks TLS is what PostgreSQL tells anybody.
    let postgres = plain("postgres", 5432, &[0, 0, 0, 8, 4, 210, 22, 47]);
    let all = [redis, plain("nginx", 80, http), postgres, plain("java", 8082, http)];
    let images = images(quick);
    all.into_iter().filter(|one| images.contains(&one.name)).collect()
}

/// The images that it takes.
const fn images(quick: bool) -> &'static [&'static str] {
    if quick {
        &["redis", "nginx"]
    } else {
        &["redis", "nginx", "postgres", "java"]
    }
}

const TOOLS: [&str; 3] = ["fastmig-pre-copy", "podman", "docker"];
const CRIPPLED: &str =
    "root lacks CAP_SYS_RESOURCE here, without which stock CRIU dumps no process of another user";

/// One round of each application by each tool.
pub(super) fn take_turns(bench: &mut Bench, round: usize) -> Result<()> {
    let quick = bench.how.quick;
    let all = applications(quick);
    if !all.iter().any(|one| TOOLS.iter().any(|tool| is_wanted(bench, one, tool))) {
        return Ok(());
    }
    let hosts = bench.hosts_with_clients(images(quick))?;
    let is_crippled = fixture::is_needed()?;
    for application in all {
        for tool in TOOLS {
            // docker takes most of a minute for each GiB.
            let is_ours = tool == TOOLS[0];
            let is_for_quick = is_ours || (round == 0 && tool == "podman");
            if (quick && !is_for_quick) || !is_wanted(bench, &application, tool) {
                continue;
            }
            if application.has_users && is_crippled && !is_ours {
                bench.leave_out(&format!("{tool} for {}", application.name), CRIPPLED);
                continue;
            }
            match measure(&hosts, &application, tool) {
                Ok([gap, total]) => {
                    bench.add(&application.work, tool, GAP, gap);
                    bench.note(&application.work, tool, TOTAL, total);
                }
                Err(error) => super::went_wrong(bench, tool, &application.work, &error),
            }
        }
    }
    Ok(())
}

fn is_wanted(bench: &Bench, application: &Application, tool: &str) -> bool {
    bench.wants(&[&format!("{} {tool}", application.work)])
}

/// By FastMig, from one container into another.
struct Warm {
    ends: [Container; 2],
}

impl Started for Warm {
    fn go(&mut self) -> Result<Vec<(&'static str, f64)>> {
        let [source, destination] = &self.ends;
        let output = migrating::command(source, destination, &["--strategy", "pre-copy"]).ok();
        output.map(|_| Vec::new()).with_context(|| migrating::logs(source, destination))
    }
}

fn start(hosts: &Hosts, application: &Application, tool: &str) -> Result<Box<dyn Started>> {
    let client: &Client = match tool {
        "podman" => &PODMAN,
        "docker" => &DOCKER,
        _ => {
            let setup = Setup::of(application.name)
                .with(application.options.clone())
                .running(application.command.clone());
            let source = Container::run(&hosts[0], "app-1", &setup)?;
            let destination = Container::run(&hosts[1], "app-2", &setup.in_standby())?;
            return Ok(Box::new(Warm { ends: [source, destination] }));
        }
    };
    client.run(hosts, &volumes(&application.options), &reference(application.name), &application.command)
}

/// The mounts that `ctr` is told of, as docker and podman are.
fn volumes(options: &[String]) -> Vec<String> {
    let mounts = options.iter().filter(|option| option.starts_with("type=bind"));
    let volume = |option: &String| {
        let field = |name: &str| option.split(',').find_map(|field| field.strip_prefix(name));
        Some(["-v".to_owned(), format!("{}:{}:ro", field("src=")?, field("dst=")?)])
    };
    mounts.filter_map(volume).flatten().collect()
}

/// Milliseconds without an answer, and of the whole move.
fn measure(hosts: &Hosts, application: &Application, tool: &str) -> Result<[f64; 2]> {
    let mut started = start(hosts, application, tool)?;
    let ask = |host: &Host| -> Result<Asking> { Asking::of(&hosts[0], host, application) };
    let (here, there) = (ask(&hosts[0])?, ask(&hosts[1])?);
    wait_until(UP_LIMIT, || here.answers()).context("it does not come up")?;
    hosts[0].sh(&application.fill).timeout(LIMIT).ok()?;
    wait_until(UP_LIMIT, || here.answers()).context("it is not there any more")?;
    let asks_on = tool.starts_with("fastmig");
    let mut last = Instant::now();
    let moved = Arc::new(AtomicBool::new(false));
    let (first, total) = std::thread::scope(|scope| {
        let until = Arc::clone(&moved);
        let first = scope.spawn(move || there.first(&until));
        let before = asks_on.then(|| scope.spawn(|| here.last(&moved)));
        let begun = Instant::now();
        let went = started.go();
        let total = begun.elapsed();
        moved.store(true, Ordering::Relaxed);
        if let Some(before) = before {
            last = before.join().map_err(|_| anyhow!("a client panicked"))?;
        }
        let first = first.join().map_err(|_| anyhow!("a client panicked"))?;
        went.map(|_| (first, total))
    })?;
    let first = first.context("nobody answers after the move")?;
    Ok([first.saturating_duration_since(last), total].map(|time| time.as_secs_f64() * 1000.0))
}

/// A client of one host.
struct Asking {
    network: Arc<Host>,
    address: SocketAddr,
    question: &'static [u8],
}

impl Asking {
    fn of(network: &Arc<Host>, host: &Host, application: &Application) -> Result<Self> {
        let address = format!("{}:{}", host.address(), application.port).parse()?;
        Ok(Self { network: Arc::clone(network), address, question: application.question })
    }

    /// Whether somebody answers now.
    fn answers(&self) -> bool {
        network::within(&self.network, || self.ask()).is_ok()
    }

    fn ask(&self) -> Result<()> {
        let mut stream = TcpStream::connect_timeout(&self.address, ANSWER_LIMIT)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.write_all(self.question)?;
        stream.read_exact(&mut [0])?;
        Ok(())
    }

    /// When it answered for the last time before it had moved.
    fn last(&self, moved: &AtomicBool) -> Instant {
        let asked = network::within(&self.network, || {
            let mut last = Instant::now();
            while !moved.load(Ordering::Relaxed) {
                if self.ask().is_ok() {
                    last = Instant::now();
                }
                sleep(PAUSE);
            }
            Ok(last)
        });
        asked.unwrap_or_else(|_| Instant::now())
    }

    /// When it answered for the first time; nothing when it does not within a while after the move.
    fn first(&self, moved: &AtomicBool) -> Option<Instant> {
        let mut late = None;
        let asked = network::within(&self.network, || loop {
            if self.ask().is_ok() {
                return Ok(Instant::now());
            }
            if moved.load(Ordering::Relaxed) && late.get_or_insert_with(Instant::now).elapsed() > UP_LIMIT / 4
            {
                return Err(anyhow!("nobody answers"));
            }
            sleep(PAUSE);
        });
        asked.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_told_in_the_words_of_each_client() {
        let options =
            ["--net-host", "--mount", "type=bind,src=/shared/x,dst=/app,options=rbind:ro"].map(str::to_owned);
        assert_eq!(volumes(&options), ["-v", "/shared/x:/app:ro"]);
        assert!(volumes(&[]).is_empty());
    }
}
