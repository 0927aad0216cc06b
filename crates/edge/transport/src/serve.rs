//! Serves a gRPC service on a listener until cancelled.

use std::convert::Infallible;
use std::time::Duration;

use futures::Stream;
use http::{Request, Response};
use rustls::ServerConfig;
use stdx::tasks::CancellationToken;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::transport::server::Connected;
use tower::Service;

use crate::limiter::Limits;
use crate::plain::PlainIncoming;
use crate::slot::Slot;
use crate::tls_incoming::TlsIncoming;
use crate::{CONNECTION_WINDOW, STREAM_WINDOW};

/// Grace period for open calls when the server or their connection is closed.
const GRACE: Duration = Duration::from_secs(3);
/// Pings to clients, and how long they may be without an answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));

/// A service for the server: gRPC, with failures as statuses.
pub trait GrpcService:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> GrpcService for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

/// Serves over TLS, with the configuration that `config` holds at each handshake and as many clients as `limits` say,
/// until `stop` fires.
///
/// # Errors
/// The server failed.
pub async fn tls(
    listener: TcpListener,
    config: Slot<ServerConfig>,
    limits: Limits,
    service: impl GrpcService,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    run(limited(limits), TlsIncoming::new(listener, config, limits), service, stop).await
}

/// Serves without TLS with the same limits, until `stop` fires.
///
/// # Errors
/// The server failed.
pub async fn plain(
    listener: TcpListener,
    limits: Limits,
    service: impl GrpcService,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    run(limited(limits), PlainIncoming::new(listener, limits), service, stop).await
}

/// A server with the limits of each connection.
fn limited(limits: Limits) -> tonic::transport::Server {
    let server = tonic::transport::Server::builder()
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1));
    match limits.age {
        Some(age) => server.max_connection_age(age).max_connection_age_grace(GRACE),
        None => server,
    }
}

/// Serves on a Unix socket until `stop` fires.
///
/// # Errors
/// The server failed.
pub async fn unix(
    listener: UnixListener,
    service: impl GrpcService,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let server = tonic::transport::Server::builder()
        .max_concurrent_streams(Limits::KNOWN.streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    run(server, UnixListenerStream::new(listener), service, stop).await
}

async fn run<IO, I>(
    server: tonic::transport::Server,
    incoming: I,
    service: impl GrpcService,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error>
where
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    I: Stream<Item = std::io::Result<IO>>,
{
    let serving = server.serve_with_incoming_shutdown(service, incoming, stop.clone().cancelled_owned());
    // Either arm ends the server; open calls are dropped when their time of grace is over.
    tokio::select! {
        served = serving => served,
        () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pki::{Algorithm, Authority, CaProfile, Sans, Subject, Template, Usage, Validity};
    use rustls::pki_types::ServerName;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpStream;

    use super::*;
    use crate::{ClientAuth, Identity, Roots};

    #[tokio::test]
    async fn a_connection_that_anybody_may_make_does_not_last() {
        let now = stdx::Clock::now(&stdx::SystemClock);
        let ca = Authority::generate(CaProfile::Os, now).unwrap();
        let template = Template {
            subject: Subject::common_name("node"),
            sans: Sans::parse(["127.0.0.1"]),
            usage: Usage::Server,
            validity: Validity::starting(now, Duration::from_secs(3600)),
        };
        let pair = ca.issue_pair(Algorithm::Ed25519, &template).unwrap();
        let identity = Identity::from_pem(&pair.crt, &pair.key).unwrap();
        let config = Slot::new(crate::server_config(identity, &ClientAuth::None).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = Limits { age: Some(Duration::from_millis(100)), ..Limits::ANYBODY };
        let service =
            tower::service_fn(async |_: Request<Body>| Ok(tonic::Status::unimplemented("test").into_http::<Body>()));
        let _serving = stdx::tasks::spawn("server", tls(listener, config, limits, service, CancellationToken::new()));

        let roots = Roots::from_pem([ca.certificate().to_pem()]).unwrap();
        let client = ::tls::client_config(None, &roots).unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
        // It sends nothing and reads until the end.
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut Vec::new())).await;
        // The end of the connection matters, not the way it ended.
        drop(read.expect("the connection stays"));
    }
}
