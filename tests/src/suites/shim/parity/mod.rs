//! What containers do under FastMig is what they do under the stock shim, side by side.

mod environment;
mod operations;
mod outcomes;
mod streams;

use super::stage::on_both;
use crate::framework::Case;

pub(super) const CASES: &[Case] = on_both![
    "a container ends as on the stock shim, and its events tell the same" => outcomes::ends,
    "a command that cannot be executed is refused as on the stock shim" => outcomes::refusals,
    "signals reach the application and its exit code comes back" => outcomes::signals,
    "standard input, output and error are the application's own" => streams::pipes,
    "a terminal is the application's own" => streams::terminal,
    "the application has nothing that runc would not give it" => environment::same,
    "tasks are looked at, paused and refused as on the stock shim" => operations::same,
    "mode=off and PID 1 commands leave the container as it is" => environment::left_alone,
];
