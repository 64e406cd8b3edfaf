//! The ends of processes, announced in the stock shim's order: after the start and the kills of the same process,
//! and that of a container's init after those of all its exec processes.

use std::sync::Arc;

use containerd_shim::protos::events::task::TaskExit;

use crate::child::{Child, Exit};
use crate::container::Container;
use crate::events::to_timestamp;
use crate::process::Process;

/// Waits for the end of a container's PID 1 and announces it.
pub(crate) async fn init(container: Arc<Container>, child: Arc<Child>) {
    let exit = child.exited().await;
    container.running.send_modify(|running| running.closed = true);
    if container.traits.shares_pid_namespace {
        // The kernel ends the others only with a PID namespace.
        match container.engine.kill(libc::SIGKILL, true).await {
            Ok(()) | Err(crate::error::Error::Finished) => {}
            Err(e) => log::warn!("{}: processes may be left: {}", container.id, e.report()),
        }
    }
    // The sender lives in `container`: it does not go away meanwhile.
    let _ = container.running.subscribe().wait_for(|running| running.count == 0).await;
    if let Some(oom) = &container.oom {
        oom.look();
    }
    announce(&container, &container.init, exit).await;
}

/// Waits for the end of an exec process and announces it.
pub(crate) async fn exec(container: Arc<Container>, process: Arc<Process>, child: Arc<Child>) {
    let exit = child.exited().await;
    announce(&container, &process, exit).await;
    container.end_exec();
}

async fn announce(container: &Container, process: &Process, exit: Exit) {
    let _start_is_announced = process.announcements.lock().await;
    let _kills_are_answered = process.kills.write().await;
    process.stopped().await;
    container.context.events.publish(TaskExit {
        container_id: container.id.clone(),
        id: process.id.clone(),
        pid: process.pid(),
        exit_status: exit.status,
        exited_at: Some(to_timestamp(exit.at)).into(),
        ..TaskExit::default()
    });
    process.announce(exit);
}
