//! A call to several nodes at once: each response is named after its node, a node that fails gets a response of its own
//! in its place, and the call as a whole succeeds.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use tonic::Status;
use tonic::body::Body;

use crate::authz::Shape;
use crate::frame::{Messages, failed_node, framed, name_node};

/// A node must have answered a unary call, or begun a stream, by then, unless the client's own deadline is earlier.
const DEADLINE: Duration = Duration::from_secs(10 * 60);

/// A call to one of the nodes.
pub(crate) struct NodeCall {
    /// The node as the client named it.
    pub(crate) name: String,
    /// The call; polled first in its turn.
    pub(crate) call: Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>,
}

/// How long each node has: a tenth less than the client's deadline, so that the answers of the others still arrive.
pub(crate) fn deadline(headers: &HeaderMap) -> Duration {
    let asked = headers.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(parse_timeout);
    asked.map_or(DEADLINE, |asked| asked.mul_f64(0.9).min(DEADLINE))
}

/// Reads `100m`-like values of the gRPC protocol.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value.checked_mul(3600)?)),
        "M" => Some(Duration::from_secs(value.checked_mul(60)?)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// Makes the calls at the same time and puts the answers together.
pub(crate) async fn gather(shape: Shape, calls: Vec<NodeCall>, deadline: Duration) -> Response<Body> {
    if shape == Shape::Unary {
        let answers = calls.into_iter().map(|call| unary(call, deadline));
        let mut all = BytesMut::new();
        for answer in futures::future::join_all(answers).await {
            all.extend_from_slice(&answer);
        }
        return respond(stream::once(async move { framed(&all) }).boxed());
    }
    respond(stream::select_all(calls.into_iter().map(|call| streamed(call, deadline))).boxed())
}

fn respond(messages: BoxStream<'static, Bytes>) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames =
        messages.map(Frame::data).chain(stream::once(async move { Frame::trailers(trailers) })).map(Ok::<_, Status>);
    let mut response = Response::new(Body::new(StreamBody::new(frames)));
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

async fn unary(node: NodeCall, deadline: Duration) -> Bytes {
    let NodeCall { name, call } = node;
    let answer = async {
        let mut messages = begin(call.await?)?;
        let message = messages.next().await?;
        // The status follows the message.
        while messages.next().await?.is_some() {}
        name_node(Shape::Unary, &message.unwrap_or_default(), &name)
    };
    match tokio::time::timeout(deadline, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(status)) => failed_node(Shape::Unary, &name, &status),
        Err(_) => failed_node(Shape::Unary, &name, &late(deadline)),
    }
}

enum Progress {
    Calling(Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>),
    Reading(Messages),
    Ended,
}

fn streamed(node: NodeCall, deadline: Duration) -> BoxStream<'static, Bytes> {
    let NodeCall { name, call } = node;
    stream::unfold(Progress::Calling(call), move |progress| {
        let name = name.clone();
        async move {
            let mut messages = match progress {
                Progress::Ended => return None,
                Progress::Reading(messages) => messages,
                Progress::Calling(call) => {
                    let begun = tokio::time::timeout(deadline, call).await.unwrap_or_else(|_| Err(late(deadline)));
                    match begun.and_then(begin) {
                        Ok(messages) => messages,
                        Err(status) => return Some((failure(&name, &status), Progress::Ended)),
                    }
                }
            };
            let next = messages.next().await;
            match next.and_then(|m| m.map(|m| name_node(Shape::ServerStream, &m, &name)).transpose()) {
                Ok(Some(message)) => Some((framed(&message), Progress::Reading(messages))),
                Ok(None) => None,
                Err(status) => Some((failure(&name, &status), Progress::Ended)),
            }
        }
    })
    .boxed()
}

fn failure(name: &str, status: &Status) -> Bytes {
    framed(&failed_node(Shape::ServerStream, name, status))
}

fn late(deadline: Duration) -> Status {
    Status::deadline_exceeded(format!("no answer within {} s", deadline.as_secs_f64()))
}

/// The messages of a response, or the status of one that has none.
fn begin(response: Response<Body>) -> Result<Messages, Status> {
    if !response.status().is_success() {
        return Err(Status::unavailable(format!("the node answered with HTTP status {}", response.status())));
    }
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != tonic::Code::Ok => Err(status),
        Some(_) => Ok(Messages::ended(response.into_body())),
        None => Ok(Messages::new(response.into_body())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_a_little_less_time_than_the_client() {
        let mut headers = HeaderMap::new();
        assert_eq!(deadline(&headers), DEADLINE);
        for (text, expected) in [("10S", 9_000), ("1000m", 900), ("1M", 54_000), ("90H", 600_000)] {
            headers.insert("grpc-timeout", HeaderValue::from_static(text));
            assert_eq!(deadline(&headers), Duration::from_millis(expected), "{text}");
        }
        headers.insert("grpc-timeout", HeaderValue::from_static("soon"));
        assert_eq!(deadline(&headers), DEADLINE);
    }
}
