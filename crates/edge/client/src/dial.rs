//! The connector: tries endpoints in turn, last good first, each with its own deadline, and says about all of them
//! when none answers.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Uri;

use crate::endpoint::Endpoint;

/// A connection with the server's first bytes.
type Stream = BufReader<TlsStream<TcpStream>>;

/// Enough for the first words of a server; larger reads go past the buffer.
const READ_AHEAD: usize = 1024;

/// No endpoint could be reached.
#[derive(Debug, Clone, thiserror::Error)]
#[error("connecting to {}", describe(.attempts))]
pub struct DialError {
    pub attempts: Vec<DialAttempt>,
}

/// The result at one endpoint.
#[derive(Debug, Clone)]
pub struct DialAttempt {
    pub endpoint: Endpoint,
    pub error: Arc<io::Error>,
}

fn describe(attempts: &[DialAttempt]) -> String {
    attempts.iter().map(|one| format!("{}: {}", one.endpoint, one.error)).collect::<Vec<_>>().join("; ")
}

/// A connector for tonic; clones share the memory of the last good endpoint.
#[derive(Clone)]
pub(crate) struct Dialer {
    shared: Arc<Shared>,
}

struct Shared {
    endpoints: Vec<Endpoint>,
    tls: TlsConnector,
    timeout: Duration,
    last_good: AtomicUsize,
}

impl Dialer {
    pub(crate) fn new(endpoints: Vec<Endpoint>, tls: TlsConnector, timeout: Duration) -> Self {
        Self { shared: Arc::new(Shared { endpoints, tls, timeout, last_good: AtomicUsize::new(0) }) }
    }

    /// The endpoint that answered last, or the first one before any did.
    pub(crate) fn last_good(&self) -> Option<&Endpoint> {
        self.shared.endpoints.get(self.shared.last_good.load(Ordering::Relaxed))
    }
}

impl Shared {
    async fn dial(&self) -> Result<Stream, DialError> {
        let count = self.endpoints.len();
        let first = self.last_good.load(Ordering::Relaxed);
        let mut attempts = Vec::new();
        for at in (0..count).map(|step| (first + step) % count) {
            let endpoint = &self.endpoints[at];
            let outcome = match tokio::time::timeout(self.timeout, self.dial_one(endpoint)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {:?}", self.timeout))),
            };
            match outcome {
                Ok(stream) => {
                    self.last_good.store(at, Ordering::Relaxed);
                    return Ok(stream);
                }
                Err(error) => {
                    tracing::debug!(%endpoint, %error, "endpoint did not answer");
                    attempts.push(DialAttempt { endpoint: endpoint.clone(), error: Arc::new(error) });
                }
            }
        }
        Err(DialError { attempts })
    }

    async fn dial_one(&self, endpoint: &Endpoint) -> io::Result<Stream> {
        let name = endpoint.server_name().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let stream = TcpStream::connect((endpoint.host(), endpoint.port())).await?;
        stream.set_nodelay(true)?;
        let mut stream = BufReader::with_capacity(READ_AHEAD, self.tls.connect(name, stream).await?);
        // In TLS 1.3 a client is done before the server has looked at its certificate. A server of HTTP/2 speaks first,
        // and only to clients that it accepted: its settings, or the alert that says why not.
        if stream.fill_buf().await?.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
        }
        Ok(stream)
    }
}

impl tower::Service<Uri> for Dialer {
    type Response = TokioIo<Stream>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let shared = self.shared.clone();
        Box::pin(async move { shared.dial().await.map(TokioIo::new) })
    }
}
