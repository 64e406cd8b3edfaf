//! The shim's own ttrpc service, spoken to by its real client.

use std::path::PathBuf;

use anyhow::{bail, ensure, Context, Result};
use fastmig_shim_api::fastmig::{After, CheckpointRequest, ContainerRequest, RestoreRequest, StatusResponse};
use fastmig_shim_api::fastmig_ttrpc::FastmigClient;
use ttrpc::context::with_duration;
use ttrpc::r#async::Client;

use super::stage::{host, nothing_is_left, on_both, Task, FASTMIG, SOON};
use crate::framework::{Case, Ctx, Generation, Host};

pub(super) const CASES: &[Case] =
    on_both!["the shim's own service takes an application out and back in" => round];

/// The service as a host's root reaches it, seen from outside through the host's root directory.
struct Service {
    client: FastmigClient,
    id: String,
}

impl Service {
    async fn connect(host: &Host, id: &str) -> Result<Self> {
        let root = PathBuf::from(format!("/proc/{}/root/run/fastmig", host.pid()));
        let socket = fastmig_shim_api::socket(&root, "default", id);
        let client = Client::connect(&format!("unix://{}", socket.display()))
            .await
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        Ok(Self { client: FastmigClient::new(client), id: id.to_owned() })
    }

    fn container(&self) -> ContainerRequest {
        ContainerRequest { id: self.id.clone(), ..Default::default() }
    }

    async fn status(&self) -> Result<StatusResponse> {
        Ok(self.client.status(with_duration(SOON), &self.container()).await?)
    }

    async fn checkpoint(&self, path: &str) -> ttrpc::Result<u32> {
        let request = CheckpointRequest {
            id: self.id.clone(),
            path: path.into(),
            after: After::STANDBY.into(),
            ..Default::default()
        };
        Ok(self.client.checkpoint(with_duration(SOON), &request).await?.processes)
    }

    async fn restore(&self, path: &str) -> ttrpc::Result<i32> {
        let request = RestoreRequest { id: self.id.clone(), path: path.into(), ..Default::default() };
        Ok(self.client.restore(with_duration(SOON), &request).await?.application_pid)
    }
}

fn round(ctx: &Ctx, generation: Generation) -> Result<()> {
    let host = host(ctx, generation)?;
    let script = "n=0; while :; do n=$((n+1)); echo $n > /tmp/n; sleep 0.05; done";
    let task = Task::start(&host, FASTMIG, &[], "service", &["sh", "-c", script])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(call(&host, &task))?;
    drop(task);
    host.sh("rm -rf /var/lib/fastmig/service-*").ok()?;
    nothing_is_left(&host)
}

async fn call(host: &Host, task: &Task<'_>) -> Result<()> {
    let service = Service::connect(host, &task.id).await?;
    ensure!(service.status().await?.application == "running", "not running at first");

    let standby = service.client.standby(with_duration(SOON), &service.container()).await?;
    ensure!((standby.application.as_str(), standby.application_pid) == ("standby", 0), "{standby:?}");
    let run = service.client.run(with_duration(SOON), &service.container()).await?;
    ensure!((run.application.as_str(), run.runs) == ("running", 2), "{run:?}");

    let image = "/var/lib/fastmig/service-image";
    let processes = service.checkpoint(image).await?;
    ensure!(processes >= 1, "an empty checkpoint");
    let before: u64 = task.sh("cat /tmp/n")?.trim().parse()?;
    ensure!(service.restore(image).await? > 1000, "the application's pid is not one of ours");
    let status = service.status().await?;
    ensure!((status.application.as_str(), status.runs) == ("running", 3), "{status:?}");
    crate::framework::process::wait_until(SOON, || {
        task.sh("cat /tmp/n").is_ok_and(|n| n.trim().parse().is_ok_and(|n: u64| n > before))
    })
    .context("the counter stands still")?;
    refusals(&service, image).await
}

async fn refusals(service: &Service, image: &str) -> Result<()> {
    expect(service.restore(image).await, ttrpc::Code::FAILED_PRECONDITION, "running")?;
    expect(service.restore("relative").await, ttrpc::Code::INVALID_ARGUMENT, "absolute")?;
    expect(service.checkpoint(image).await, ttrpc::Code::FAILED_PRECONDITION, "not empty")?;
    let request = ContainerRequest { id: "nobody".into(), ..Default::default() };
    let unknown = service.client.status(with_duration(SOON), &request).await;
    expect(unknown, ttrpc::Code::NOT_FOUND, "nobody")
}

fn expect<T: std::fmt::Debug>(result: ttrpc::Result<T>, code: ttrpc::Code, word: &str) -> Result<()> {
    match result {
        Err(ttrpc::Error::RpcStatus(status)) => {
            ensure!(status.code() == code && status.message().contains(word), "{status:?}");
            Ok(())
        }
        other => bail!("not refused with {code:?}: {other:?}"),
    }
}
