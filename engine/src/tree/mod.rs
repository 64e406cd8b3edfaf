//! The application's processes, below the init.
//!
//! | file | what it does |
//! |---|---|
//! | `application` | their numbers and states, as the host counts and as the container does |
//! | `cgroup` | their own freezer |
//! | `privilege`, `apparmor` | what they may do, compared with PID 1 before anything restored runs |
//! | `orphans` | whose children those become whose parent has ended |
//! | `network_lock`, `sockets` | their connections: locked while they are to be kept; mute, or over |

pub(crate) mod apparmor;
pub(crate) mod application;
pub(crate) mod cgroup;
pub(crate) mod network_lock;
pub(crate) mod orphans;
pub(crate) mod privilege;
pub(crate) mod sockets;
