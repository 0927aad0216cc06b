//! gRPC framing and the two small protobuf rewrites of the fan-out: naming the node in a response, and a response that
//! says that a node failed.
//!
//! Nothing is decoded: protobuf lets a parser merge a second occurrence of an embedded message into the first, so the
//! name is appended, and unknown fields pass as they are.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use prost::Message;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::authz::Shape;

/// Length of the prefix of each message: a compression flag and the length.
const PREFIX: usize = 5;

/// Adds the prefix of an uncompressed message.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX + message.len());
    out.put_u8(0);
    // Messages are bounded by `transport::MAX_MESSAGE`, far below the limit of the field.
    out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    out.put_slice(message);
    out.freeze()
}

/// Takes a body apart into messages and the status at its end.
#[derive(Debug)]
pub(crate) struct Messages {
    body: Body,
    buffer: BytesMut,
    status: Option<Status>,
    done: bool,
}

impl Messages {
    pub(crate) fn new(body: Body) -> Self {
        Self { body, buffer: BytesMut::new(), status: None, done: false }
    }

    /// For a response whose headers already reported success.
    pub(crate) fn ended(body: Body) -> Self {
        Self { status: Some(Status::ok("")), ..Self::new(body) }
    }

    /// The next message; `None` when the call has ended well.
    ///
    /// # Errors
    /// The status with which the call failed, or the transport.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            if self.done {
                return self.end();
            }
            match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            self.status = Status::from_header_map(&trailers);
                        }
                    }
                },
                Some(Err(status)) => return Err(status),
                None => self.done = true,
            }
        }
    }

    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(prefix) = self.buffer.get(..PREFIX) else { return Ok(None) };
        if prefix[0] != 0 {
            return Err(Status::internal("unexpected compression of the node's response"));
        }
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if length > transport::MAX_MESSAGE {
            return Err(Status::resource_exhausted("the node sent a message that is larger than 32 MiB"));
        }
        if self.buffer.len() < PREFIX + length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    fn end(&mut self) -> Result<Option<Bytes>, Status> {
        match self.status.take() {
            Some(status) if status.code() == Code::Ok => Ok(None),
            Some(status) => Err(status),
            None => Err(Status::unavailable("the node ended its response without a status")),
        }
    }
}

/// Collects a request that is a single message, with its prefix.
///
/// # Errors
/// It exceeds the limit of the API, or the client disconnected.
pub(crate) async fn collect(body: Body) -> Result<Bytes, Status> {
    let limited = http_body_util::Limited::new(body, transport::MAX_MESSAGE + PREFIX);
    let collected = limited.collect().await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            return Status::resource_exhausted("the request is larger than 32 MiB");
        }
        Status::from_error(error)
    })?;
    Ok(collected.to_bytes())
}

/// Names the node in a response. For a unary call that is each of its `messages`, for a stream the message itself.
///
/// # Errors
/// The response is no protobuf message.
pub(crate) fn name_node(shape: Shape, response: &[u8], hostname: &str) -> Result<Bytes, Status> {
    let metadata = wire::common::Metadata { hostname: hostname.to_owned(), ..Default::default() };
    let mut field = BytesMut::new();
    put_bytes_field(&mut field, 1, &metadata.encode_to_vec());
    if shape != Shape::Unary {
        let mut out = BytesMut::from(response);
        out.extend_from_slice(&field);
        return Ok(out.freeze());
    }
    let mut out = BytesMut::with_capacity(response.len() + field.len() + 16);
    let mut rest = response;
    while !rest.is_empty() {
        let start = rest;
        let key = varint(&mut rest)?;
        if key == (1 << 3 | 2) {
            let message = take(&mut rest, None)?;
            put_key(&mut out, 1);
            prost::encoding::encode_varint((message.len() + field.len()) as u64, &mut out);
            out.extend_from_slice(message);
            out.extend_from_slice(&field);
        } else {
            skip(key, &mut rest)?;
            out.extend_from_slice(&start[..start.len() - rest.len()]);
        }
    }
    Ok(out.freeze())
}

/// A response in the place of one that a node did not give.
pub(crate) fn failed_node(shape: Shape, hostname: &str, status: &Status) -> Bytes {
    let metadata = wire::common::Metadata {
        hostname: hostname.to_owned(),
        error: format!("rpc error: code = {:?} desc = {}", status.code(), status.message()),
        status: Some(wire::google::rpc::Status {
            code: status.code() as i32,
            message: status.message().to_owned(),
            details: Vec::new(),
        }),
    };
    let mut message = BytesMut::new();
    put_bytes_field(&mut message, 1, &metadata.encode_to_vec());
    if shape != Shape::Unary {
        return message.freeze();
    }
    let mut response = BytesMut::new();
    put_bytes_field(&mut response, 1, &message);
    response.freeze()
}

fn put_key(out: &mut BytesMut, field: u64) {
    prost::encoding::encode_varint(field << 3 | 2, out);
}

fn put_bytes_field(out: &mut BytesMut, field: u64, value: &[u8]) {
    put_key(out, field);
    prost::encoding::encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn malformed() -> Status {
    Status::internal("the node sent a malformed response")
}

fn varint(rest: &mut &[u8]) -> Result<u64, Status> {
    prost::encoding::decode_varint(rest).map_err(|_| malformed())
}

/// Takes `length` bytes, or the length in the frame's header.
fn take<'a>(rest: &mut &'a [u8], length: Option<usize>) -> Result<&'a [u8], Status> {
    let length = match length {
        Some(length) => length,
        None => usize::try_from(varint(rest)?).map_err(|_| malformed())?,
    };
    let (taken, left) = rest.split_at_checked(length).ok_or_else(malformed)?;
    *rest = left;
    Ok(taken)
}

fn skip(key: u64, rest: &mut &[u8]) -> Result<(), Status> {
    match key & 7 {
        0 => varint(rest).map(drop),
        1 => take(rest, Some(8)).map(drop),
        2 => take(rest, None).map(drop),
        5 => take(rest, Some(4)).map(drop),
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{Full, StreamBody};
    use wire::{common, machine};

    use super::*;

    fn version(tag: &str) -> machine::Version {
        let version = machine::VersionInfo { tag: tag.into(), ..Default::default() };
        machine::Version { version: Some(version), ..Default::default() }
    }

    #[test]
    fn each_message_of_a_unary_response_gets_the_name() {
        let response = machine::VersionResponse { messages: vec![version("a"), version("b")] };
        let named = name_node(Shape::Unary, &response.encode_to_vec(), "10.5.0.2").unwrap();
        let decoded = machine::VersionResponse::decode(named).unwrap();
        let seen: Vec<_> = decoded
            .messages
            .iter()
            .map(|m| (m.metadata.as_ref().unwrap().hostname.as_str(), m.version.as_ref().unwrap().tag.as_str()))
            .collect();
        assert_eq!(seen, [("10.5.0.2", "a"), ("10.5.0.2", "b")]);
    }

    #[test]
    fn a_name_replaces_one_that_is_there_and_keeps_the_rest_of_the_metadata() {
        let metadata = common::Metadata { hostname: "old".into(), error: "e".into(), status: None };
        let data = common::Data { metadata: Some(metadata), bytes: "x".into() };
        let named = name_node(Shape::ServerStream, &data.encode_to_vec(), "new").unwrap();
        let decoded = common::Data::decode(named).unwrap();
        assert_eq!(decoded.bytes, "x");
        let metadata = decoded.metadata.unwrap();
        assert_eq!((metadata.hostname.as_str(), metadata.error.as_str()), ("new", "e"));
    }

    #[test]
    fn fields_that_are_not_known_pass_unchanged() {
        let mut response = machine::VersionResponse { messages: vec![version("a")] }.encode_to_vec();
        let unknown = [0x10, 0x2a, 0x19, 1, 2, 3, 4, 5, 6, 7, 8, 0x25, 1, 2, 3, 4, 0x32, 2, 9, 9];
        response.extend_from_slice(&unknown);
        let named = name_node(Shape::Unary, &response, "n").unwrap();
        assert!(named.ends_with(&unknown));
    }

    #[test]
    fn responses_of_nodes_are_put_together_by_concatenation() {
        let one = machine::VersionResponse { messages: vec![version("a")] }.encode_to_vec();
        let mut all = name_node(Shape::Unary, &one, "n1").unwrap().to_vec();
        all.extend_from_slice(&failed_node(Shape::Unary, "n2", &Status::unavailable("no route")));
        let decoded = machine::VersionResponse::decode(all.as_slice()).unwrap();
        let failed = decoded.messages[1].metadata.as_ref().unwrap();
        assert_eq!(failed.hostname, "n2");
        assert_eq!(failed.error, "rpc error: code = Unavailable desc = no route");
        assert_eq!(failed.status.as_ref().unwrap().code, 14);
    }

    #[test]
    fn a_truncated_response_is_an_error_and_no_panic() {
        let response = machine::VersionResponse { messages: vec![version("a")] }.encode_to_vec();
        for end in 1..response.len() {
            let error = name_node(Shape::Unary, &response[..end], "n").unwrap_err();
            assert_eq!(error.code(), Code::Internal);
        }
    }

    #[tokio::test]
    async fn messages_are_found_however_they_are_cut() {
        let mut bytes = framed(b"one").to_vec();
        bytes.extend_from_slice(&framed(b""));
        bytes.extend_from_slice(&framed(b"three"));
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", "5".parse().unwrap());
        let mut frames: Vec<Result<_, Status>> =
            bytes.chunks(2).map(|c| Ok(http_body::Frame::data(Bytes::copy_from_slice(c)))).collect();
        frames.push(Ok(http_body::Frame::trailers(trailers)));
        let mut messages = Messages::new(Body::new(StreamBody::new(futures::stream::iter(frames))));
        assert_eq!(messages.next().await.unwrap().unwrap(), "one");
        assert_eq!(messages.next().await.unwrap().unwrap(), "");
        assert_eq!(messages.next().await.unwrap().unwrap(), "three");
        assert_eq!(messages.next().await.unwrap_err().code(), Code::NotFound);
    }

    #[tokio::test]
    async fn a_response_without_a_status_is_an_error() {
        let mut messages = Messages::new(Body::new(Full::new(framed(b"one")).map_err(|never| match never {})));
        assert_eq!(messages.next().await.unwrap().unwrap(), "one");
        assert_eq!(messages.next().await.unwrap_err().code(), Code::Unavailable);
    }
}
