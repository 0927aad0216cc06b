//! The frame of a server program: runtime, signals, shutdown.
//!
//! Arguments, logging and the exit code are the program's own.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use stdx::tasks::CancellationToken;
use tokio::net::TcpListener;

/// Why a program ended badly.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError<E: std::error::Error + 'static> {
    /// There are no threads for it.
    #[error("starting the runtime")]
    Runtime(#[source] std::io::Error),
    /// The signal handlers could not be installed.
    #[error("listening for signals")]
    Signals(#[source] std::io::Error),
    /// The served function failed.
    #[error(transparent)]
    Serve(E),
}

/// Runs what `serve` makes on `workers` threads. When the process is asked to end, the token fires, and what was made
/// ends in its own time.
///
/// # Errors
/// [`ProgramError`].
pub fn run<F, E>(workers: usize, serve: impl FnOnce(CancellationToken) -> F) -> Result<(), ProgramError<E>>
where
    F: Future<Output = Result<(), E>>,
    E: std::error::Error + 'static,
{
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(workers).enable_all().build().map_err(ProgramError::Runtime)?;
    runtime.block_on(async {
        let mut requests = sys::signals::Requests::listen().map_err(ProgramError::Signals)?;
        let stop = CancellationToken::new();
        let serving = serve(stop.clone());
        tokio::pin!(serving);
        // The request is cancel-safe, and `serving` is polled again below.
        tokio::select! {
            served = &mut serving => return served.map_err(ProgramError::Serve),
            _ = requests.next() => tracing::info!("stopping"),
        }
        stop.cancel();
        serving.await.map_err(ProgramError::Serve)
    })
}

/// A server's address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listening on {address}")]
pub struct ListenError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// Listens on `address`.
///
/// # Errors
/// [`ListenError`].
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError { address, source })
}

/// The wildcard address, to listen on every address of this machine: that of IPv6, which takes IPv4 as well, or that of
/// IPv4 where the kernel has nothing else.
#[must_use]
pub fn wildcard_address(port: u16) -> SocketAddr {
    match std::net::TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, 0))) {
        Ok(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        Err(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
    }
}
