//! Work that blocks, on a thread where it may.

use fastmig_api::{Code, ErrorInfo};

/// Does `work` on a blocking thread.
///
/// # Errors
/// When it panicked, or the daemon ends.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ErrorInfo> {
    tokio::task::spawn_blocking(work).await.map_err(|e| ErrorInfo::of(Code::Internal, &e))
}
