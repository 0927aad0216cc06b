//! Unix sockets to serve on and to dial.

use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use sys::files::{self, Access, FileError};
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::{Channel, Endpoint};

/// Why a socket could not be served on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// It could not be made.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no runtime to serve on, or it refuses the socket.
    #[error("serving on {path}")]
    Serve {
        /// Of the socket.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
}

/// Listens on `path`: makes its directory, replaces a socket that a former process left, and sets who may connect
/// (`mode` as for chmod, `owner` as user and group id). Symbolic links are not followed.
///
/// # Errors
/// A step failed.
pub fn bind(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<UnixListener, BindError> {
    let listener = files::listen_unix(path, Access { mode, owner })?;
    UnixListener::from_std(listener).map_err(|source| BindError::Serve { path: path.to_owned(), source })
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
