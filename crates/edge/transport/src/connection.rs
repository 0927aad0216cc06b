//! An accepted connection: a stream, its peer, and its place among the connections that are counted.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::Connected;

use crate::limiter::{AnonymousConnection, ConnectionPermit};
use crate::peer::PeerInfo;

/// Connections that may wait for the server; it takes them at once, so this is only a cushion.
pub(crate) const BACKLOG: usize = 16;
/// Pause after the kernel refused to accept, so that a lack of descriptors does not spin a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The next connection to a listener.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(error = %error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection that holds its place until it is dropped.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    peer: PeerInfo,
    place: Place,
}

impl<S> Connection<S> {
    pub(crate) const fn new(stream: S, peer: PeerInfo, place: Place) -> Self {
        Self { stream, peer, place }
    }
}

/// What a connection counts against.
pub(crate) enum Place {
    Counted { _permit: ConnectionPermit },
    Displaceable { displaced: BoxFuture<'static, ()>, _connection: AnonymousConnection },
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Counted { .. } => "Counted",
            Self::Displaceable { .. } => "Displaceable",
        })
    }
}

impl Place {
    pub(crate) const fn counted(permit: ConnectionPermit) -> Self {
        Self::Counted { _permit: permit }
    }

    pub(crate) fn displaceable(connection: AnonymousConnection) -> Self {
        let displaced = Box::pin(connection.displaced.clone().cancelled_owned());
        Self::Displaceable { displaced, _connection: connection }
    }

    /// Whether a newer connection took the place; wakes the task that reads when one does.
    fn poll_displaced(&mut self, cx: &mut Context<'_>) -> bool {
        match self {
            Self::Counted { .. } => false,
            Self::Displaceable { displaced, .. } => displaced.as_mut().poll(cx).is_ready(),
        }
    }
}

impl<S> Connected for Connection<S> {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.place.poll_displaced(cx) {
            let why = "closed in favour of a newer connection";
            return Poll::Ready(Err(std::io::Error::new(std::io::ErrorKind::ConnectionAborted, why)));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
