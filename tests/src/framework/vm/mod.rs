//! A machine with a kernel of Debian's, for what the kernel here has not: emulated by QEMU, so that it runs anywhere, slowly.
//!
//! [`kernel`] is what it boots. Either a script, and then it is off: [`guest`] is what that finds, [`machine`] runs it. Or a
//! whole Debian that stays up: [`system`] is its disk, [`early`] what finds the disk, [`node`] the machine, `saved` what it is
//! when it has come up, by `monitor`, [`store`] what its containerd has, [`cluster`] two of them with FastMig; [`vagrant`] makes the same for people.

pub mod cluster;
pub mod early;
pub mod guest;
pub mod kernel;
pub mod machine;
mod monitor;
pub mod node;
mod saved;
pub mod store;
pub mod system;
pub mod vagrant;

pub use cluster::Cluster;
pub use guest::Guest;
pub use kernel::Kernel;
pub use node::{Node, Site};
