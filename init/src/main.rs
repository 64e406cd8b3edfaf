//! The program `fastmig-init`. All of it is in the library.
//!
//! The standard library's own entry point is left out: it ignores SIGPIPE, installs signal handlers and touches a
//! quarter of a megabyte of code that an idle init would keep resident.
#![no_main]

use std::ffi::{c_char, c_int};

/// Where the C library starts the program. The arguments come by way of the standard library, which on glibc takes
/// them before `main`.
#[no_mangle]
pub extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    fastmig_init::run(std::env::args_os().skip(1)).into()
}
