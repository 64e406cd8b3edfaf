//! CRIU, driven over its RPC (`criu swrk`): started inside a container's namespaces with only the
//! capabilities it needs, under a time limit, its log kept and its failures explained.
//!
//! Knows nothing of containers, init or checkpoints: it is told which namespaces to join, which process to
//! dump and where the images are. The flow of one call:
//!
//! 1. [`Bundle`] says where the shipped CRIU, its loader and its libraries are.
//! 2. [`Launch`] starts it: cgroups, namespaces, capabilities, descriptors ([`launch`]; what it does by itself is in `entry`).
//! 3. [`Session`] speaks the RPC ([`session`]) with [`DumpOptions`] or [`RestoreOptions`].
//! 4. After a dump, what CRIU gets wrong in an image is mended ([`mend_timers`]).
//! 5. Between two hosts neither goes through files: [`stream`].
//! 6. Its view of memory is ours where memory travels ahead of it: [`view`].
//! 7. What its processes take is counted: [`meter`].
//! 8. The filters that images would give to threads are compared with a process's: [`seccomp`].
//! 9. What it needs of the kernel is there before it asks: `breakpoints`.
//! 10. On failure [`explain()`] turns CRIU's log into a cause and a remedy.

mod breakpoints;
mod bundle;
pub mod clock;
mod credentials;
mod entry;
mod explain;
pub mod launch;
mod launch_error;
mod lazy;
mod life;
mod log;
mod message;
pub mod meter;
mod namespaces;
mod options;
mod person;
mod pids;
pub mod seccomp;
pub mod session;
pub mod stream;
mod sys;
mod timers;
pub mod view;

pub use bundle::{Bundle, BundleError};
pub use credentials::{is_core, with_bounding_set};
pub use explain::{explain, tail, Explanation};
pub use launch::Launch;
pub use launch_error::LaunchError;
pub use lazy::LazySocket;
pub use life::Life;
pub use log::{Detail, Log};
pub use meter::Meter;
pub use options::{Common, DumpOptions, InheritedFd, RestoreOptions, Tcp};
pub use person::Person;
pub use pids::set_last_pid;
pub use session::{CriuError, Features, Notification, PreparedDump, Session, Version};
pub use stream::{ImageSink, ImageSource, PageImage, ProcessMemory, StreamedDump, StreamedRestore};
pub use timers::mend_timers;
