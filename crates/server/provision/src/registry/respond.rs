//! One answer of the registry: request head in, response out. Reads blobs, opens no socket.

use std::io::SeekFrom;
use std::path::Path;

use bytes::Bytes;
use futures::TryStreamExt as _;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::request::Parts;
use http::{HeaderName, Method, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::layout::{Layout, LayoutError, digest};
use crate::boot::files::Content;

/// A response of the registry.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
/// Larger manifests are no manifests; the distribution API names the same limit.
const MANIFEST_LIMIT: u64 = 4 << 20;

/// A request that is not answered with content.
struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(error = %stdx::ErrorChain(error), "registry cannot answer");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "the image layout cannot be read")
    }
}

impl From<LayoutError> for Refusal {
    fn from(error: LayoutError) -> Self {
        Self::internal(&error)
    }
}

/// Answers one request.
pub async fn respond(layout: &Layout, request: &Parts) -> Response<Body> {
    let answer = route(layout, request).await.unwrap_or_else(|refusal| {
        let body = serde_json::json!({ "errors": [{ "code": refusal.code, "message": refusal.message }] });
        let text = body.to_string();
        build(
            refusal.status,
            &[(CONTENT_TYPE, "application/json"), (CONTENT_LENGTH, &text.len().to_string())],
            text.into(),
        )
    });
    without_body(request, answer)
}

/// Marks the answer to a request whose address is a secret.
#[derive(Debug, Clone, Copy)]
pub(super) struct Withheld;

/// Sends a file or a text that machines boot with.
pub(super) async fn send(content: &Content, request: &Parts) -> Response<Body> {
    let (path, range) = match content {
        Content::Text(text) => {
            let length = text.len().to_string();
            let headers = [(CONTENT_TYPE, "text/plain"), (CONTENT_LENGTH, &length)];
            return without_body(request, build(StatusCode::OK, &headers, text.clone().into()));
        }
        Content::Configuration(path) => (path, None),
        Content::File(path) => (path, request.headers.get(RANGE).and_then(|value| value.to_str().ok())),
    };
    let mut answer = file(path, "no-digest", range)
        .await
        .unwrap_or_else(|Refusal { status, .. }| build(status, &[(CONTENT_LENGTH, "0")], Bytes::new()));
    answer.headers_mut().remove(DIGEST);
    if matches!(content, Content::Configuration(_)) {
        answer.extensions_mut().insert(Withheld);
    }
    without_body(request, answer)
}

fn without_body(request: &Parts, response: Response<Body>) -> Response<Body> {
    if request.method == Method::HEAD { response.map(|_| full(Bytes::new())) } else { response }
}

async fn route(layout: &Layout, request: &Parts) -> Result<Response<Body>, Refusal> {
    if request.method != Method::GET && request.method != Method::HEAD {
        return Err(Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "UNSUPPORTED",
            "this registry can only be pulled from",
        ));
    }
    let not_found = || Refusal::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "no such address in this registry");
    let path = request.uri.path();
    let path = path.strip_prefix("/v2").ok_or_else(not_found)?.trim_start_matches('/');
    if path.is_empty() {
        return Ok(build(StatusCode::OK, &[(CONTENT_TYPE, "application/json"), (CONTENT_LENGTH, "2")], "{}".into()));
    }
    let host = namespace(request.uri.query().unwrap_or_default());
    if let Some((repository, reference)) = path.rsplit_once("/manifests/") {
        return manifest(layout, host.as_deref(), repository, reference).await;
    }
    let (_, wanted) = path.rsplit_once("/blobs/").ok_or_else(not_found)?;
    let range = request.headers.get(RANGE).and_then(|value| value.to_str().ok());
    blob(layout, wanted, range).await
}

/// The requested registry: containerd sends `?ns=HOST` to mirrors.
fn namespace(query: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("ns="))?;
    // Hosts need no escapes but for the colon of a port.
    Some(value.replace("%3A", ":").replace("%3a", ":"))
}

async fn manifest(
    layout: &Layout,
    host: Option<&str>,
    repository: &str,
    reference: &str,
) -> Result<Response<Body>, Refusal> {
    let unknown = || {
        let name = format!("{}{repository}", host.map(|host| format!("{host}/")).unwrap_or_default());
        let separator = if digest(reference).is_some() { '@' } else { ':' };
        let message = format!("{name}{separator}{reference} is not in the cluster's bundle");
        Refusal::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", message)
    };
    let found = layout.find(host, repository, reference)?;
    // Manifests of one platform are not in the index but below one of its entries.
    let wanted = found.as_ref().map_or(reference, |descriptor| descriptor.digest.as_str());
    let path = layout.blob(wanted).ok_or_else(unknown)?;
    let bytes = read_manifest(&path).await.ok_or_else(unknown)?;
    let media_type = match &found {
        Some(descriptor) => descriptor.media_type.clone(),
        None => media_type(&bytes).ok_or_else(unknown)?,
    };
    let length = bytes.len().to_string();
    let headers = [(CONTENT_TYPE, media_type.as_str()), (CONTENT_LENGTH, &length), (DIGEST, wanted)];
    Ok(build(StatusCode::OK, &headers, bytes.into()))
}

async fn read_manifest(path: &Path) -> Option<Vec<u8>> {
    let size = tokio::fs::metadata(path).await.ok()?.len();
    if size > MANIFEST_LIMIT {
        return None;
    }
    tokio::fs::read(path).await.ok()
}

/// Media type of a manifest. Layers and configurations are not manifests.
fn media_type(bytes: &[u8]) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    if let Some(said) = json.get("mediaType").and_then(serde_json::Value::as_str) {
        return Some(said.to_owned());
    }
    if json.get("manifests").is_some() {
        return Some("application/vnd.oci.image.index.v1+json".to_owned());
    }
    json.get("layers").map(|_| "application/vnd.oci.image.manifest.v1+json".to_owned())
}

async fn blob(layout: &Layout, wanted: &str, range: Option<&str>) -> Result<Response<Body>, Refusal> {
    let invalid = || Refusal::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "a digest is sha256: and 64 hex digits");
    let path = layout.blob(wanted).ok_or_else(invalid)?;
    file(&path, wanted, range).await
}

/// A file under a name that errors and a header give it.
async fn file(path: &Path, wanted: &str, range: Option<&str>) -> Result<Response<Body>, Refusal> {
    let mut file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Refusal::new(
                StatusCode::NOT_FOUND,
                "BLOB_UNKNOWN",
                format!("{wanted} is not in the cluster's bundle"),
            ));
        }
        Err(error) => return Err(Refusal::internal(&error)),
    };
    let size = file.metadata().await.map_err(|error| Refusal::internal(&error))?.len();
    let wanted_range = range.map_or(ByteRange::All, |range| byte_range(range, size));
    let (status, first, length) = match wanted_range {
        ByteRange::All => (StatusCode::OK, 0, size),
        ByteRange::Bytes { first, last } => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        ByteRange::Outside => {
            let message = format!("the blob has {size} bytes");
            return Err(Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", message));
        }
    };
    file.seek(SeekFrom::Start(first)).await.map_err(|error| Refusal::internal(&error))?;
    let stream = ReaderStream::with_capacity(file.take(length), 64 << 10).map_ok(Frame::data);
    let length = length.to_string();
    let mut headers = vec![
        (CONTENT_TYPE, "application/octet-stream"),
        (CONTENT_LENGTH, length.as_str()),
        (ACCEPT_RANGES, "bytes"),
        (DIGEST, wanted),
    ];
    let content_range;
    if let ByteRange::Bytes { first, last } = wanted_range {
        content_range = format!("bytes {first}-{last}/{size}");
        headers.push((CONTENT_RANGE, &content_range));
    }
    Ok(build_with(status, &headers, StreamBody::new(stream).boxed_unsync()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ByteRange {
    All,
    Bytes { first: u64, last: u64 },
    Outside,
}

/// A single byte range. Invalid or multiple ranges are answered with the whole content, as RFC 9110 allows.
fn byte_range(range: &str, size: u64) -> ByteRange {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return ByteRange::All;
    };
    let end = size.saturating_sub(1);
    let bounds = match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.min(end)),
        (Ok(first), Err(_)) if last.trim().is_empty() => (first, end),
        (Err(_), Ok(suffix)) if first.trim().is_empty() && suffix > 0 => (size.saturating_sub(suffix), end),
        (Err(_), Ok(0)) if first.trim().is_empty() => return ByteRange::Outside,
        _ => return ByteRange::All,
    };
    if bounds.0 >= size { ByteRange::Outside } else { ByteRange::Bytes { first: bounds.0, last: bounds.1 } }
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn build(status: StatusCode, headers: &[(HeaderName, &str)], bytes: Bytes) -> Response<Body> {
    build_with(status, headers, full(bytes))
}

fn build_with(status: StatusCode, headers: &[(HeaderName, &str)], body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(VERSION, http::HeaderValue::from_static("registry/2.0"));
    for (name, value) in headers {
        if let Ok(value) = http::HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests;
