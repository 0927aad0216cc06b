//! TLS 1.3 listeners. The configuration is read from a slot at each handshake, so certificates change without a
//! restart; connections that are open keep theirs.
//!
//! One source can take neither all handshakes nor all connections: what it opens beyond its share is closed at once.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use stdx::tasks::{Task, TaskSet};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::identity::{Identity, IdentityError, Roots};
use crate::seats::{Limits, Seat, Seats};
use crate::slot::Slot;

/// A peer that has not finished its handshake by then is dropped.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes at a time: enough for a burst, bounded because each costs memory and signatures, and because a peer that
/// shows no certificate can begin them.
const HANDSHAKES: usize = 512;
/// Handshakes at a time from one source.
const HANDSHAKES_PER_SOURCE: usize = 128;
/// Finished handshakes that may wait for the server; it takes them at once, so this is only a cushion.
const BACKLOG: usize = 16;
/// Pause after the kernel refused to accept, so that a lack of descriptors does not spin a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a server asks of its clients.
#[derive(Debug, Clone)]
pub enum ClientAuth {
    /// Nothing.
    None,
    /// A certificate for client use that one of these authorities signed.
    Required(Roots),
}

/// TLS 1.3 with HTTP/2 for a server that shows `identity`.
///
/// # Errors
/// The key does not fit the certificate, or the authorities cannot be used.
pub fn server_config(identity: Identity, clients: &ClientAuth) -> Result<ServerConfig, IdentityError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(IdentityError::Tls)?;
    let builder = match clients {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Required(roots) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(roots.0.clone(), provider)
                .build()
                .map_err(IdentityError::Verifier)?,
        ),
    };
    let mut config = builder.with_single_cert(identity.chain, identity.key).map_err(IdentityError::Tls)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Who is at the other end of a connection; an extension of each request on it.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// The verified certificate chain, leaf first, DER; empty where the server asked for none.
    pub certificates: Arc<[CertificateDer<'static>]>,
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: PeerInfo,
    _seat: Seat,
}

impl Connected for Connection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
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
        let accepting = accept_forever(listener, config, Seats::new(limits.total, limits.per_source), sender);
        Self { connections, _accepting: stdx::tasks::spawn("tls accept", accepting) }
    }
}

impl Stream for TlsIncoming {
    type Item = std::io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}

async fn accept_forever(
    listener: TcpListener,
    config: Slot<ServerConfig>,
    open: Seats,
    sender: mpsc::Sender<Connection>,
) {
    let handshakes = TaskSet::new("tls handshakes");
    let handshaking = Seats::new(HANDSHAKES, HANDSHAKES_PER_SOURCE);
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(error = %error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Dropping the stream closes it. This is said at debug: a flood must not flood the log as well.
        let Some(shaking) = handshaking.take(address.ip()) else {
            tracing::debug!(peer = %address, "closed a connection: too many handshakes");
            continue;
        };
        let acceptor = TlsAcceptor::from(config.get());
        let (sender, open) = (sender.clone(), open.clone());
        handshakes.spawn("tls handshake", async move {
            match tokio::time::timeout(HANDSHAKE, handshake(acceptor, stream, address)).await {
                Ok(Ok((stream, peer))) => {
                    drop(shaking);
                    let Some(seat) = open.take(address.ip()) else {
                        tracing::debug!(peer = %address, "closed a connection: too many are open");
                        return;
                    };
                    // The receiver is gone only when the server is.
                    drop(sender.send(Connection { stream, peer, _seat: seat }).await);
                }
                // A health check connects and says nothing.
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    tracing::debug!(peer = %address, "a connection ended before its handshake did");
                }
                Ok(Err(error)) => tracing::info!(peer = %address, error = %error, "refused a connection"),
                Err(_) => tracing::info!(peer = %address, "refused a connection whose handshake took too long"),
            }
        });
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
) -> std::io::Result<(TlsStream<TcpStream>, PeerInfo)> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec().into();
    Ok((stream, PeerInfo { address, certificates }))
}
