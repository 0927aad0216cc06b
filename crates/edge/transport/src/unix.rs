//! Unix sockets to serve on and to dial.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::{Channel, Endpoint};

/// Why a socket could not be served on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A step failed.
    #[error("{step} {path}")]
    Io {
        /// The operation.
        step: &'static str,
        /// Its subject.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
}

/// Listens on `path`: makes its directory, replaces a socket that a former process left, and sets who may connect
/// (`mode` as for chmod, `owner` as user and group id).
///
/// # Errors
/// A step failed.
pub fn bind(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<UnixListener, BindError> {
    let failed = |step, path: &Path| {
        let path = path.to_owned();
        move |source| BindError::Io { step, path, source }
    };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(failed("making directory", directory))?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(failed("removing old socket", path)(error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed("listening on", path))?;
    if let Some((user, group)) = owner {
        std::os::unix::fs::chown(path, Some(user), Some(group)).map_err(failed("setting the owner of", path))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(failed("setting the mode of", path))?;
    Ok(listener)
}

/// A channel to the gRPC server on a socket; it connects at the first call and again after a loss.
#[must_use]
pub fn channel(path: &Path) -> Channel {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The URI is never used to connect, only as the authority of requests.
    Endpoint::from_static("http://localhost")
        .initial_stream_window_size(crate::STREAM_WINDOW)
        .initial_connection_window_size(crate::CONNECTION_WINDOW)
        .connect_with_connector_lazy(connector)
}
