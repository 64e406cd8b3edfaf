//! A machine with a kernel of Debian's, for what the kernel here has not: emulated by QEMU, so that it runs anywhere, slowly.
//!
//! [`kernel`] is what it boots, [`guest`] what it finds when it has, [`machine`] the machine itself.

pub mod guest;
pub mod kernel;
pub mod machine;

pub use guest::Guest;
pub use kernel::Kernel;
