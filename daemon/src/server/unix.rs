//! The socket that only root reaches.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::http::Http;
use crate::pki::certificate::Caller;
use crate::start::StartError;

/// A listener on a unix socket; its file goes with it.
#[derive(Debug)]
pub(crate) struct Unix {
    listener: UnixListener,
    path: PathBuf,
}

impl Unix {
    /// Listens at `path`, where nobody listens any more: who holds the daemon's lock may take it.
    pub(crate) fn bind(path: &Path) -> Result<Self, StartError> {
        if let Some(parent) = path.parent() {
            crate::files::make_private_dir(parent).map_err(StartError::io("make", parent))?;
        }
        remove_socket(path).map_err(StartError::io("replace", path))?;
        let listener = UnixListener::bind(path).map_err(StartError::io("listen on", path))?;
        // Its user is asked of the kernel for each connection as well.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .map_err(StartError::io("keep others from", path))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Takes connections until the daemon stops.
    pub(crate) async fn serve(self, http: Http) {
        let places = Arc::new(Semaphore::new(http.daemon.config.daemon.max_connections));
        let mut stopping = std::pin::pin!(http.daemon.stopping());
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = &mut stopping => return,
            };
            match accepted {
                Ok((stream, _)) => admit(&http, stream, &places),
                Err(e) => {
                    tracing::warn!(error = %e, "a connection could not be taken");
                    // Out of descriptors: at once it would be no better.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

fn admit(http: &Http, stream: UnixStream, places: &Arc<Semaphore>) {
    let is_root = stream.peer_cred().is_ok_and(|peer| peer.uid() == 0);
    if !is_root {
        http.daemon.metrics.refused("user");
        return;
    }
    let Ok(place) = places.clone().try_acquire_owned() else {
        http.daemon.metrics.refused("too many");
        return;
    };
    let http = http.clone();
    tokio::spawn(async move {
        http.serve(stream, Caller::root(), false).await;
        drop(place);
    });
}

impl Drop for Unix {
    fn drop(&mut self) {
        // The next daemon replaces it otherwise.
        let _ = remove_socket(&self.path);
    }
}

/// Another kind of file is somebody's.
fn remove_socket(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(metadata) if metadata.file_type().is_socket() => fs::remove_file(path),
        Ok(_) => Err(io::Error::other("it is there, and no socket")),
    }
}
