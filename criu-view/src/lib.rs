//! The library that CRIU is started under (`--preload` of the bundle's loader): it shows CRIU memory as the engine wants
//! it seen. Without `FASTMIG_VIEW` in the environment it forwards everything.
//!
//! The engine shares a table with it (`fastmig-criu-view-layout`), which is mapped before CRIU's `main` (`start`).
//!
//! * A dump sees no content in the mappings and files that are hidden (`scan`, `shared`), and the smaps that the
//!   engine has read (`smaps`).
//! * A restore waits for its request while the engine has areas laid out and fills them (`serve`, `areas`, `huge`); when CRIU
//!   then maps the places of private memory, it gets the filled ones (`premap`), and the filled segments in place of the
//!   shared memory that it makes (`shared`). Who inherits what is not taken yet is in `family`.
//!
//! The functions that CRIU finds here first are in `hooks`. They run in a program that forks and clones: they make
//! system calls alone, allocate nothing and cannot panic.

// Shipped without the standard library, whose own needs (libgcc_s) would come along; it is linked where panics unwind, in
// builds for tests, which cannot do without.
#![cfg_attr(panic = "abort", no_std)]

mod areas;
mod family;
pub mod hooks;
mod huge;
mod memory;
mod premap;
mod proc_path;
mod scan;
mod serve;
mod shared;
mod smaps;
mod start;
mod sys;
mod table;
