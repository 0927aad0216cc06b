//! The audit layer: one log line for each call, when it ends, with method, peer, status and duration.
//!
//! It looks at the status in the trailers as they pass and changes nothing. Of a message it logs the first line: what
//! follows may quote a configuration, and logs are read by more people than configurations.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::tls::PeerInfo;

/// Wraps a gRPC service; `server` names it in the log.
#[derive(Debug, Clone, Copy)]
pub struct AuditLayer {
    server: &'static str,
}

impl AuditLayer {
    /// A layer for the server of this name.
    #[must_use]
    pub const fn new(server: &'static str) -> Self {
        Self { server }
    }
}

impl<S> Layer<S> for AuditLayer {
    type Service = Audit<S>;

    fn layer(&self, inner: S) -> Audit<S> {
        Audit { inner, server: self.server }
    }
}

/// A service whose calls are logged.
#[derive(Debug, Clone)]
pub struct Audit<S> {
    inner: S,
    server: &'static str,
}

/// The future of an audited call: the wrapped service's response, with a body that logs the end.
type AuditFuture<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for Audit<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = AuditFuture<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let record = Record {
            server: self.server,
            method: request.uri().path().to_owned(),
            peer: request.extensions().get::<PeerInfo>().map(|peer| peer.address),
            started: Instant::now(),
            status: None,
        };
        let response = self.inner.call(request);
        Box::pin(async move {
            let mut record = record;
            let response = response.await?;
            record.note(response.headers());
            Ok(response.map(|body| Body::new(AuditBody { body, record })))
        })
    }
}

/// What the line says; written when dropped, so that a call that its client gave up is logged too.
#[derive(Debug)]
struct Record {
    server: &'static str,
    method: String,
    peer: Option<SocketAddr>,
    started: Instant,
    status: Option<(Code, String)>,
}

impl Record {
    fn note(&mut self, headers: &HeaderMap) {
        if self.status.is_none() {
            self.status = Status::from_header_map(headers).map(|status| logged(&status));
        }
    }
}

fn logged(status: &Status) -> (Code, String) {
    (status.code(), status.message().lines().next().unwrap_or_default().to_owned())
}

impl Drop for Record {
    fn drop(&mut self) {
        let (code, message) =
            self.status.take().unwrap_or_else(|| (Code::Cancelled, "the client went away".to_owned()));
        let duration = self.started.elapsed();
        let peer = self.peer.map(tracing::field::display);
        let Self { server, method, .. } = &*self;
        tracing::info!(server, method, peer, ?code, message, ?duration, "call");
    }
}

struct AuditBody {
    body: Body,
    record: Record,
}

impl http_body::Body for AuditBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.record.note(trailers);
                }
            }
            Poll::Ready(Some(Err(status))) => {
                self.record.status = Some(logged(status));
            }
            Poll::Ready(None) | Poll::Pending => {}
        }
        frame
    }

    // A body that is empty already is kept a stream, so that its end is seen here.
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_first_line_of_a_message_is_not_logged() {
        let status = Status::invalid_argument("machine.token changed\n-  token: old\n+  token: new\n");
        assert_eq!(logged(&status), (Code::InvalidArgument, "machine.token changed".to_owned()));
        assert_eq!(logged(&Status::ok("")), (Code::Ok, String::new()));
    }
}
