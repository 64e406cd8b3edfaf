//! The two ends of a migration: the protocol's seam, filled by the engine.

mod images;
mod leaving;
mod waiting;

use std::sync::Arc;

use fastmig_engine::migration::{Terms, Ticket, Way};
use fastmig_engine::{Config, Container, Key};
use fastmig_migrate::ends::{Doubt, EndError, InDoubt, Leaving, Memory, Owing, Waiting};
use fastmig_migrate::options::Strategy;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The application of `container`, which is to leave by migration `id`.
///
/// # Errors
/// When its application does not run.
pub fn leaving(container: &Container, id: &str, terms: &Terms) -> Result<Box<dyn Leaving>, EndError> {
    let departure = container.depart(id, terms).map_err(told)?;
    Ok(Box::new(leaving::Leaver::new(container.clone(), departure, terms)))
}

/// The container `key`, in standby, which is to take an application in by migration `id`, from a host at one of `addresses`.
///
/// # Errors
/// When there is no such container, or it is not in standby.
pub fn waiting(
    config: Arc<Config>,
    key: &Key,
    id: &str,
    addresses: Vec<String>,
) -> Result<Box<dyn Waiting>, EndError> {
    let container = Container::open(config, key).map_err(told)?;
    let arrival = container.arrive(id).map_err(told)?;
    Ok(Box::new(waiting::Waiter::new(arrival, addresses)))
}

/// What travels ahead of the application.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Papers {
    passport: Value,
    ticket: Ticket,
}

/// What the frozen application of `container`, which has left by migration `id`, owes.
///
/// # Errors
/// When it is not there any more.
pub fn owed(container: &Container, id: &str) -> Result<Arc<dyn Memory>, EndError> {
    Ok(Arc::new(images::Owed(container.owed(id).map_err(told)?)))
}

/// The application of `container`, which has come by migration `id`, runs from here on, and is owed memory.
///
/// # Errors
/// When it cannot be thawed.
pub fn follow(container: &Container, id: &str) -> Result<Box<dyn Owing>, EndError> {
    Ok(Box::new(waiting::Owing(container.follow(id).map_err(told)?)))
}

/// The engine's part of a strategy.
fn way(strategy: Strategy) -> Way {
    match strategy {
        strategy if strategy.has_rounds() => Way::Rounds,
        _ => Way::Stream,
    }
}

/// The whole story in one line.
fn told(error: fastmig_engine::Error) -> EndError {
    let report = error.report();
    match error {
        fastmig_engine::Error::View(doubt) => {
            let mappings = doubt.mappings().iter().map(|mapping| InDoubt {
                process: mapping.pid,
                start: mapping.start,
                end: mapping.end,
            });
            Doubt { reason: report, mappings: mappings.collect() }.into()
        }
        _ => report.into(),
    }
}
