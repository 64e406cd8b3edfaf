//! The way out: the server is at this host's address, and gets what waits.

use super::admin::Backend;
use super::{Arguments, HaproxyError};

/// Lets HAProxy find the application on this host. Done twice it does no harm.
pub(super) fn release(arguments: &Arguments) -> Result<(), HaproxyError> {
    let backend = Backend { socket: &arguments.socket, name: &arguments.backend };
    let (backend_name, server) = (arguments.backend.clone(), arguments.server.clone());
    if backend.server(&server)?.is_none() {
        return Err(HaproxyError::NoServer { backend: backend_name, server });
    }
    backend.set_address(&server, arguments.address)?;
    backend.set_ready(&server)?;
    // Only now: a backend without any server would refuse.
    let stand_in = arguments.stand_in();
    match backend.server(&stand_in)? {
        Some(_) => backend.set_maintenance(&stand_in),
        None => Ok(()),
    }
}
