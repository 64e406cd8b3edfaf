//! Points at which a test lets a migration fail. Nothing of it is read from the environment.

use crate::journal::Role;

/// What happens at a point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The step fails with this text.
    Fail(String),
    /// As if the process had died: nothing is sent, journaled, resumed or abandoned any more.
    Die,
}

/// Asked at each phase's begin (its name), at its end (its name and `-done`), and around the decision:
/// `fenced`, `deciding`, `commit-sent` on the source, `committed`, `released` on the destination.
pub trait Faults: Send + Sync {
    /// What happens here. It may also take its time.
    fn at(&self, role: Role, point: &str) -> Fault;
}

/// None, ever.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFaults;

impl Faults for NoFaults {
    fn at(&self, _: Role, _: &str) -> Fault {
        Fault::None
    }
}
