//! TLS 1.3 listeners. The configuration is read from a slot at each handshake, so certificates change without a
//! restart; connections that are open keep theirs.
//!
//! One client can take neither all handshakes nor all connections: see [`crate::limiter`].

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use rustls::ServerConfig;
use stdx::tasks::{Task, TaskSet};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::limiter::{AnonymousConnection, AnonymousPool, ConnectionLimiter, ConnectionPermit, Limits, WhenFull};
use crate::peer::{PeerIdentity, PeerInfo};
use crate::slot::Slot;

/// A peer that has not finished its handshake by then is dropped.
const HANDSHAKE: Duration = Duration::from_secs(4);
/// Finished handshakes that may wait for the server; it takes them at once, so this is only a cushion.
const BACKLOG: usize = 16;
/// Pause after the kernel refused to accept, so that a lack of descriptors does not spin a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection after its handshake.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: PeerInfo,
    place: Place,
}

/// What a connection counts against.
enum Place {
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
    fn displaceable(connection: AnonymousConnection) -> Self {
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

impl Connected for Connection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.place.poll_displaced(cx) {
            let why = "closed in favour of a newer connection";
            return Poll::Ready(Err(std::io::Error::new(std::io::ErrorKind::ConnectionAborted, why)));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
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

/// Connections of a listener, each after its handshake. Dropping it closes the listener.
#[derive(Debug)]
pub struct TlsIncoming {
    connections: mpsc::Receiver<Connection>,
    _accepting: Task<()>,
}

impl TlsIncoming {
    /// Starts accepting. Must be called in a runtime.
    #[must_use]
    pub fn new(listener: TcpListener, config: Slot<ServerConfig>, limits: Limits) -> Self {
        let (sender, connections) = mpsc::channel(BACKLOG);
        let accepting = Accepting {
            config,
            counted: ConnectionLimiter::new(limits),
            when_full: limits.when_full,
            anonymous: AnonymousPool::new(limits.total, limits.per_source),
            sender,
        };
        let handshaking = AnonymousPool::new(limits.handshakes, limits.handshakes_per_source);
        let accepting = accept_forever(listener, handshaking, accepting);
        Self { connections, _accepting: stdx::tasks::spawn("tls accept", accepting) }
    }
}

impl Stream for TlsIncoming {
    type Item = std::io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}

/// What becomes of an accepted connection; clones share the counts.
#[derive(Debug, Clone)]
struct Accepting {
    config: Slot<ServerConfig>,
    counted: ConnectionLimiter,
    when_full: WhenFull,
    anonymous: AnonymousPool,
    sender: mpsc::Sender<Connection>,
}

async fn accept_forever(listener: TcpListener, handshaking: AnonymousPool, accepting: Accepting) {
    let handshakes = TaskSet::new("tls handshakes");
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(error = %error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (place, accepting) = (handshaking.enter(address.ip()), accepting.clone());
        handshakes.spawn("tls handshake", async move {
            // Either arm ends the handshake; dropping the stream closes it. A displaced connection is logged at debug: a
            // flood must not flood the log as well.
            tokio::select! {
                () = place.displaced.cancelled() => {
                    tracing::debug!(peer = %address, "closed a connection: too many handshakes");
                }
                () = accepting.finish(stream, address) => {}
            }
        });
    }
}

impl Accepting {
    async fn finish(self, stream: TcpStream, address: SocketAddr) {
        let acceptor = TlsAcceptor::from(self.config.get());
        match tokio::time::timeout(HANDSHAKE, handshake(acceptor, stream, address)).await {
            Ok(Ok((stream, peer))) => {
                let place = if peer.identity.is_none() && self.when_full == WhenFull::Displace {
                    Place::displaceable(self.anonymous.enter(address.ip()))
                } else {
                    match self.counted.admit(&peer) {
                        Ok(permit) => Place::Counted { _permit: permit },
                        Err(refusal) => {
                            tracing::debug!(%peer, %refusal, "closed a connection");
                            return;
                        }
                    }
                };
                // The receiver is gone only when the server is.
                drop(self.sender.send(Connection { stream, peer, place }).await);
            }
            // A health check connects and says nothing.
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                tracing::debug!(peer = %address, "a connection ended before its handshake did");
            }
            Ok(Err(error)) => tracing::info!(peer = %address, error = %error, "refused a connection"),
            Err(_) => tracing::info!(peer = %address, "refused a connection whose handshake took too long"),
        }
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
) -> std::io::Result<(TlsStream<TcpStream>, PeerInfo)> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let leaf = leaf.map(|leaf| pki::Certificate::from_der(leaf)).transpose();
    let leaf = leaf.map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))?;
    let identity = leaf.map(|leaf| Arc::new(PeerIdentity::new(leaf)));
    Ok((stream, PeerInfo { address, identity }))
}
