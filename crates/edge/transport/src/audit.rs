//! The audit layer: one log line for each call, when it ends, with method, caller, status and duration.
//!
//! It looks at the status in the trailers as they pass and changes nothing. Of a message it logs the first line: what
//! follows may quote a configuration, and logs are read by more people than configurations.
//!
//! The caller is told along the way of a call in metadata ([`CALLER`]): `apid` writes it from the certificate that it
//! verified, other nodes' `apid` and `machined` read it. Whether what came is to be believed depends on who sent it, so
//! each server says by a function where its caller stands.

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

use crate::peer::PeerInfo;

/// Metadata: the client on whose behalf a call is made, as `FINGERPRINT ADDRESS SUBJECT`. Ours; it counts only from a node.
pub const CALLER: &str = "talos-caller";
/// The most of a caller that is told, in bytes; subjects have no limit of their own.
const MAX_CALLER: usize = 512;
/// The most of a path that is logged, in bytes: that of a method that nobody knows is the client's choice.
const MAX_METHOD: usize = 128;

/// Finds the caller of a request.
pub type CallerOf = fn(&Request<Body>) -> Option<String>;

/// For servers whose callers are known by their peer address alone, or are one process.
#[must_use]
pub const fn no_caller(_: &Request<Body>) -> Option<String> {
    None
}

/// For servers that only `apid` can reach: the caller that it tells.
#[must_use]
pub fn forwarded_caller(request: &Request<Body>) -> Option<String> {
    let told = request.headers().get(CALLER)?.to_str().ok()?;
    Some(told[..told.len().min(MAX_CALLER)].to_owned())
}

/// A caller as metadata: printable ASCII of a bounded length, whatever is in the subject.
#[must_use]
pub fn caller_text(peer: &PeerInfo) -> String {
    let mut text: String = peer.to_string().chars().flat_map(printable).take(MAX_CALLER).collect();
    text.truncate(text.trim_end().len());
    text
}

fn printable(c: char) -> impl Iterator<Item = char> {
    let plain = c == ' ' || c.is_ascii_graphic();
    plain.then_some(c).into_iter().chain((!plain).then(|| c.escape_default()).into_iter().flatten())
}

/// Wraps a gRPC service; `server` names it in the log.
#[derive(Debug, Clone, Copy)]
pub struct AuditLayer {
    server: &'static str,
    caller: CallerOf,
}

impl AuditLayer {
    /// A layer for the server of this name, whose callers `caller` finds.
    #[must_use]
    pub const fn new(server: &'static str, caller: CallerOf) -> Self {
        Self { server, caller }
    }
}

impl<S> Layer<S> for AuditLayer {
    type Service = Audit<S>;

    fn layer(&self, inner: S) -> Audit<S> {
        Audit { inner, layer: *self }
    }
}

/// A service whose calls are logged.
#[derive(Debug, Clone)]
pub struct Audit<S> {
    inner: S,
    layer: AuditLayer,
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
            server: self.layer.server,
            method: request.uri().path().chars().take(MAX_METHOD).collect(),
            peer: request.extensions().get::<PeerInfo>().map(|peer| peer.address),
            caller: (self.layer.caller)(&request),
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

/// Content of the audit line; written on drop, so that abandoned calls are logged too.
#[derive(Debug)]
struct Record {
    server: &'static str,
    method: String,
    peer: Option<SocketAddr>,
    caller: Option<String>,
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
            self.status.take().unwrap_or_else(|| (Code::Cancelled, "the client disconnected".to_owned()));
        let duration = self.started.elapsed();
        let peer = self.peer.map(tracing::field::display);
        let Self { server, method, caller, .. } = &*self;
        tracing::info!(server, method, peer, caller, ?code, message, ?duration, "call");
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
    fn a_caller_is_told_in_printable_characters_of_a_bounded_length() {
        let now = stdx::Clock::now(&stdx::SystemClock);
        let subject = pki::Subject {
            common_name: Some(format!("a\nb\u{e9}{}", "x".repeat(1000))),
            organizations: vec!["os:reader".into()],
        };
        let validity = pki::Validity::starting(now, std::time::Duration::from_secs(60));
        let template = pki::Template { subject, sans: pki::Sans::default(), usage: pki::Usage::Client, validity };
        let ca = pki::Authority::generate(pki::CaProfile::Os, now).unwrap();
        let leaf = ca.issue_pair(pki::Algorithm::Ed25519, &template).unwrap();
        let leaf = pki::Certificate::from_pem(&leaf.crt).unwrap();
        let begin = format!("{} 10.5.0.9:1234 O=os:reader,CN=a\\nb\\u{{e9}}xxx", leaf.fingerprint());
        let identity = Some(std::sync::Arc::new(crate::PeerIdentity::new(leaf)));
        let text = caller_text(&PeerInfo { address: ([10, 5, 0, 9], 1234).into(), identity });
        assert!(text.starts_with(&begin) && text.len() == MAX_CALLER, "{text}");
        http::HeaderValue::try_from(text).unwrap();
        assert_eq!(caller_text(&PeerInfo { address: ([10, 5, 0, 9], 1234).into(), identity: None }), "- 10.5.0.9:1234");
    }

    #[test]
    fn what_follows_the_first_line_of_a_message_is_not_logged() {
        let status = Status::invalid_argument("machine.token changed\n-  token: old\n+  token: new\n");
        assert_eq!(logged(&status), (Code::InvalidArgument, "machine.token changed".to_owned()));
        assert_eq!(logged(&Status::ok("")), (Code::Ok, String::new()));
    }
}
