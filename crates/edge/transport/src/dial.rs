//! Channels to other nodes over TLS 1.3, with the certificates of a slot.
//!
//! Calls to a node that cannot be reached wait for one attempt together: they are not sent down a line in which each has
//! to wait for an attempt of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::slot::Slot;

/// Connect timeout, including TLS.
pub const CONNECT: Duration = Duration::from_secs(5);
/// After a failed attempt, calls fail at once for this long: those that waited for it, and an operator's retries.
/// Short, so that a recovered node is found soon.
const PAUSE: Duration = Duration::from_secs(1);
/// Idle time of a peer before a keepalive ping...
const KEEPALIVE: Duration = Duration::from_secs(10);
/// ...and the timeout of the ping.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A channel to `address`, whose certificate must be for that IP address. It connects at the first call and again
/// after a loss, with the configuration that the slot holds then. For a moment after an attempt that failed, calls fail
/// with its reason.
#[must_use]
pub fn channel(address: SocketAddr, config: Slot<ClientConfig>) -> Channel {
    let failed: Arc<Mutex<Option<Failure>>> = Arc::default();
    Endpoint::from_static("http://node")
        .initial_stream_window_size(crate::STREAM_WINDOW)
        .initial_connection_window_size(crate::CONNECTION_WINDOW)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .connect_with_connector_lazy(tower::service_fn(move |_| {
            let connector = TlsConnector::from(config.get());
            let failed = Arc::clone(&failed);
            async move {
                let recent = failed.lock().as_ref().filter(|failure| failure.at.elapsed() < PAUSE).map(Failure::again);
                if let Some(error) = recent {
                    return Err(error);
                }
                let attempt = tokio::time::timeout(CONNECT, connect(connector, address)).await.unwrap_or_else(|_| {
                    let why = format!("no connection to {address} within {} s", CONNECT.as_secs());
                    Err(std::io::Error::new(std::io::ErrorKind::TimedOut, why))
                });
                *failed.lock() = attempt.as_ref().err().map(Failure::new);
                attempt.map(TokioIo::new)
            }
        }))
}

/// An attempt that failed.
struct Failure {
    at: Instant,
    kind: std::io::ErrorKind,
    why: String,
}

impl Failure {
    fn new(error: &std::io::Error) -> Self {
        Self { at: Instant::now(), kind: error.kind(), why: error.to_string() }
    }

    fn again(&self) -> std::io::Error {
        std::io::Error::new(self.kind, self.why.clone())
    }
}

async fn connect(
    connector: TlsConnector,
    address: SocketAddr,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    connector.connect(ServerName::IpAddress(address.ip().into()), stream).await
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use tower::ServiceExt as _;

    use super::*;

    fn config() -> ClientConfig {
        let now = stdx::Clock::now(&stdx::SystemClock);
        let ca = pki::Authority::generate(pki::CaProfile::Os, now).unwrap();
        tls::client_config(None, &tls::Roots::from_pem([ca.certificate().to_pem()]).unwrap()).unwrap()
    }

    async fn call(channel: Channel) -> String {
        let request = http::Request::post("http://node/x").body(tonic::body::Body::new(Empty::new())).unwrap();
        stdx::error_chain(&channel.oneshot(request).await.unwrap_err())
    }

    /// A peer that accepts and stays silent costs its caller one full attempt.
    #[tokio::test]
    async fn many_calls_to_a_silent_node_fail_together_and_not_one_after_the_other() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let channel = channel(silent.local_addr().unwrap(), Slot::new(config()));
        let begun = Instant::now();
        let answers = futures::future::join_all((0..8).map(|_| call(channel.clone()))).await;
        assert!(answers.iter().all(|why| why.contains("no connection to 127.0.0.1")), "{answers:?}");
        assert!(begun.elapsed() < CONNECT * 2, "they took {:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_node_that_returns_is_tried_again_after_a_moment() {
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = closed.local_addr().unwrap();
        drop(closed);
        let channel = channel(address, Slot::new(config()));
        assert!(call(channel.clone()).await.contains("refused"));
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let tried = async {
            loop {
                call(channel.clone()).await;
                tokio::time::sleep(PAUSE / 4).await;
            }
        };
        let accepted = async { listener.accept().await.unwrap() };
        tokio::select! {
            // Both arms are cancel-safe for this test: the first to end decides it.
            _ = accepted => {}
            () = async { tokio::time::timeout(PAUSE * 8, tried).await.unwrap_or(()) } => panic!("it was not tried again"),
        }
    }
}
