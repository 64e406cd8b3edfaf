//! What is done and what was done: each operation in a task of its own, recorded on disk before it begins and when it has
//! ended.
//!
//! | file | what it does |
//! |---|---|
//! | `record` | one operation on disk |
//! | `registry` | begins operations, or finds the one that was begun with the same idempotency key |
//! | `job` | what the work of an operation may say while it goes on |
//!
//! ```text
//!   asked --(record written)--> Running --(record written)--> Done | Failed | Cancelled
//!                                  |
//!                                  +--- the daemon dies ---> Failed at its next start, or what the journal decided
//! ```

mod job;
mod record;
mod registry;

pub use job::{Ending, Job};
pub use registry::{Asked, Registry};
