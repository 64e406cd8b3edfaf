//! An application that stands still, whoever dies meanwhile.
//!
//! | file | what it does |
//! |---|---|
//! | `frozen` | frozen, and the ways on from there |
//! | `hold` | restored, and frozen before CRIU lets go of it |
//! | `watchdog`, `survivor` | processes that outlive us, and let it run on or end it |
//! | `awake`, `gate` | the processors and the kernel, kept ready: what it stands still for is waiting mostly |

pub(crate) mod awake;
pub(crate) mod frozen;
pub(crate) mod gate;
pub(crate) mod hold;
pub(crate) mod survivor;
pub(crate) mod watchdog;
