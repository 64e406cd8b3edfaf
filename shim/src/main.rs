//! `containerd-shim-fastmig-v1`: started by containerd, see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    fastmig_shim::main()
}
