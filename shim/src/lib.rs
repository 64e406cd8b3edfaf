//! The containerd shim `io.containerd.fastmig.v1`: containerd's Task service over the engine.
//!
//! The shim holds no mechanism. It speaks with containerd, lays the streams, waits for processes and announces
//! what happened; what a container is and how it is checkpointed the engine knows.
//!
//! | file | what it does |
//! |---|---|
//! | `service`, `context` | the shim's life: `start`, serve, `delete` (`launch`, `cleanup`), and `-info` (`info`) |
//! | `task` | the Task service: request, response, event |
//! | `container`, `create` | a container and what is done to it |
//! | `operations` | the shim's own service: checkpoint, restore, standby, run, status |
//! | `process`, `state` | its processes, and their legal moves |
//! | `supervise`, `child`, `reaper` | the ends of processes: waited for, announced, and orphans |
//! | `io` | standard streams and terminals |
//! | `engine` | the engine's blocking calls |
//! | `events`, `oom` | what containerd is told |
//! | `cgroup`, `stats` | what a container uses |
//! | `options`, `spec`, `checkpoint`, `rootfs`, `idmap` | what containerd sends, and what lies in the bundle |
//! | `error` | failures and their ttrpc codes |

mod cgroup;
mod checkpoint;
mod child;
mod cleanup;
mod container;
mod context;
mod create;
mod engine;
mod error;
mod events;
mod idmap;
mod info;
mod io;
mod launch;
mod oom;
mod operations;
mod options;
mod process;
mod reaper;
mod rootfs;
mod service;
mod spec;
mod state;
mod stats;
mod supervise;
mod sys;
mod task;

use std::process::ExitCode;

/// The type of runtime that this shim is.
pub const RUNTIME: &str = "io.containerd.fastmig.v1";

/// The whole program, told by its command line what to be.
#[must_use]
pub fn main() -> ExitCode {
    if let Some(code) = fastmig_engine::keeper::run_if_asked() {
        return code;
    }
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match containerd_shim::parse(&arguments) {
        Ok(flags) if flags.version => {
            println!("{RUNTIME}:\n  Version:  {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Ok(flags) if flags.info => finish(info::answer()),
        Ok(flags) if flags.action == "delete" => finish(cleanup::answer(&flags)),
        Ok(_) => finish(serve()),
        Err(e) => finish(Err(std::io::Error::other(e))),
    }
}

/// A pod's shim has little to do: two threads serve it, and blocking calls get their own.
fn serve() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // The engine waits for runc and CRIU by their pids: a wait for any child would race with it.
    let config = containerd_shim::Config { no_reaper: true, ..containerd_shim::Config::default() };
    // Ends the process itself when it fails.
    runtime.block_on(containerd_shim::run::<service::Service>(RUNTIME, Some(config)));
    // A copy or a wait that is still under way has nobody left to serve.
    runtime.shutdown_background();
    Ok(())
}

fn finish(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{RUNTIME}: {e}");
            ExitCode::FAILURE
        }
    }
}
