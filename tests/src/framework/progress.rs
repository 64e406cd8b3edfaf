//! One line for each step that takes time, so that whoever waits knows for what.

use std::time::Instant;

use anyhow::Result;

/// Runs `work` and prints how long it took; announces it first, for it may take a minute.
pub fn long_step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("{what} ...");
    step(what, work)
}

/// Runs `work` and prints one line with the time it took.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let result = work();
    let seconds = start.elapsed().as_secs_f64();
    match &result {
        Ok(_) => eprintln!("{what}: {seconds:.2} s"),
        Err(_) => eprintln!("{what}: failed after {seconds:.2} s"),
    }
    result
}
