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
use rustls::ServerConfig;
use stdx::tasks::{Task, TaskSet};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::connection::{BACKLOG, Connection, Place, accept};
use crate::limiter::{AnonymousPool, ConnectionLimiter, Limits, WhenFull};
use crate::peer::{PeerIdentity, PeerInfo};
use crate::slot::Slot;

/// A peer that has not finished its handshake by then is dropped.
const HANDSHAKE: Duration = Duration::from_secs(4);

/// A connection after its handshake.
pub type TlsConnection = Connection<TlsStream<TcpStream>>;

/// Connections of a listener, each after its handshake. Dropping it closes the listener.
#[derive(Debug)]
pub struct TlsIncoming {
    connections: mpsc::Receiver<TlsConnection>,
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
    type Item = std::io::Result<TlsConnection>;

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
    sender: mpsc::Sender<TlsConnection>,
}

async fn accept_forever(listener: TcpListener, handshaking: AnonymousPool, accepting: Accepting) {
    let handshakes = TaskSet::new("tls handshakes");
    loop {
        let (stream, address) = accept(&listener).await;
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
                        Ok(permit) => Place::counted(permit),
                        Err(refusal) => {
                            tracing::debug!(%peer, %refusal, "closed a connection");
                            return;
                        }
                    }
                };
                // The receiver is gone only when the server is.
                drop(self.sender.send(Connection::new(stream, peer, place)).await);
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
