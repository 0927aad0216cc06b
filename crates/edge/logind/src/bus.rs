//! The socket of the bus.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use std::io;

use stdx::error_chain;
use stdx::tasks::{self, Task, TaskSet};
use sys::files::{self, FileError};
use tokio::net::UnixListener;

use crate::connection::Connection;
use crate::lock::Logind;

/// Clients at a time: there is the kubelet, and whoever looks.
const CLIENTS: usize = 64;
/// Before the next try where the kernel has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// The bus cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    #[error("preparing the socket of D-Bus")]
    Prepare(#[from] FileError),
    #[error("listening on {}", socket.display())]
    Listen {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A bus that serves until it is dropped, which closes all connections.
#[derive(Debug)]
pub struct Bus {
    socket: PathBuf,
    _serving: Task<()>,
}

impl Bus {
    /// Serves at `socket`, for root alone.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn start(socket: &Path, logind: &Logind) -> Result<Self, BusError> {
        if let Some(directory) = socket.parent() {
            files::ensure_directory(directory, 0o755)?;
        }
        files::remove(socket)?;
        let failed = |source| BusError::Listen { socket: socket.to_owned(), source };
        let listener = UnixListener::bind(socket).map_err(failed)?;
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let serving = tasks::spawn("D-Bus", accept(listener, logind.clone()));
        Ok(Self { socket: socket.to_owned(), _serving: serving })
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        if let Err(error) = files::remove(&self.socket) {
            tracing::warn!(error = error_chain(&error), "the socket of D-Bus stays");
        }
    }
}

async fn accept(listener: UnixListener, logind: Logind) {
    let clients = TaskSet::new("D-Bus");
    // It tells buses apart, and is no secret.
    let guid = format!("{:032x}", std::process::id());
    let mut names = 1u64;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(error = error_chain(&error), "a client of D-Bus is not served");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if clients.running() >= CLIENTS {
            tracing::warn!("a client of D-Bus is not served: there are {CLIENTS}");
            continue;
        }
        let connection = Connection::new(stream, logind.clone(), format!(":1.{names}"), guid.clone());
        names += 1;
        clients.spawn("client of D-Bus", async move {
            if let Err(error) = connection.serve().await {
                tracing::debug!(error = error_chain(&error), "a client of D-Bus is not served any more");
            }
        });
    }
}

#[cfg(test)]
mod tests;
