//! What is done and what was done: each operation in a task of its own, recorded on disk before it begins and when it has
//! ended.
//!
//! | file | what it does |
//! |---|---|
//! | `registry` | begins operations, or finds the one that was begun with the same idempotency key |
//! | `job` | the work of one: recorded, done, recorded |
//! | `entry` | one in memory: who waits for it, how it is cancelled |
//! | `record` | one on disk |
//!
//! ```text
//!   asked --(record written)--> Running --(record written)--> Done | Failed | Cancelled
//!                                  |
//!                                  +--- the daemon dies ---> Failed at its next start, or what the journal decided
//! ```

mod entry;
mod job;
mod record;
mod registry;

pub use job::{Ending, Job};
pub use record::Asked;
pub use registry::Registry;
