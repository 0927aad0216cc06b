use http::Request;
use serde_json::{Value, json};

use super::*;

struct Tiny {
    folder: tempfile::TempDir,
    layout: Layout,
    manifest: String,
    layer: String,
}

fn put(folder: &Path, bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let hex = stdx::hex(digest.as_ref());
    std::fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
    std::fs::write(folder.join("blobs/sha256").join(&hex), bytes).unwrap();
    format!("sha256:{hex}")
}

fn tiny() -> Tiny {
    let folder = tempfile::tempdir().unwrap();
    let layer = put(folder.path(), b"0123456789");
    let text = json!({ "schemaVersion": 2, "layers": [{ "digest": layer }] }).to_string();
    let manifest = put(folder.path(), text.as_bytes());
    let entry = |reference: &str| {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": manifest,
            "size": text.len(),
            "annotations": { "org.opencontainers.image.ref.name": reference },
        })
    };
    let index = json!({ "schemaVersion": 2, "manifests": [entry("registry.k8s.io/pause:3.8"), entry("docker.io/library/test:1")] });
    std::fs::write(folder.path().join("index.json"), index.to_string()).unwrap();
    Tiny { layout: Layout::new(folder.path()), folder, manifest, layer }
}

async fn ask(tiny: &Tiny, method: &str, uri: &str, range: Option<&str>) -> (Response<()>, Vec<u8>) {
    let mut request = Request::builder().method(method).uri(uri);
    if let Some(range) = range {
        request = request.header(RANGE, range);
    }
    let (head, ()) = request.body(()).unwrap().into_parts();
    let (head, body) = respond(&tiny.layout, &head).await.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes().to_vec();
    (Response::from_parts(head, ()), bytes)
}

fn header(response: &Response<()>, name: &str) -> String {
    response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

fn code(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap();
    body["errors"][0]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_manifest_is_found_by_tag_for_the_registry_that_the_client_wanted() {
    let tiny = tiny();
    let (response, body) = ask(&tiny, "GET", "/v2/pause/manifests/3.8?ns=registry.k8s.io", None).await;
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "content-type"), "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(header(&response, "docker-content-digest"), tiny.manifest);
    assert_eq!(header(&response, "content-length"), body.len().to_string());
    let (response, body) = ask(&tiny, "GET", "/v2/pause/manifests/3.8?ns=gcr.io", None).await;
    assert_eq!((response.status().as_u16(), code(&body).as_str()), (404, "MANIFEST_UNKNOWN"));
    let (response, _) = ask(&tiny, "GET", "/v2/library/test/manifests/1", None).await;
    assert_eq!(response.status(), 200, "without ns any registry will do");
}

#[tokio::test]
async fn a_manifest_is_found_by_digest_with_the_same_bytes() {
    let tiny = tiny();
    let (_, by_tag) = ask(&tiny, "GET", "/v2/pause/manifests/3.8", None).await;
    let uri = format!("/v2/pause/manifests/{}?ns=registry.k8s.io", tiny.manifest);
    let (response, by_digest) = ask(&tiny, "GET", &uri, None).await;
    assert_eq!((response.status().as_u16(), by_digest), (200, by_tag));
    let uri = format!("/v2/pause/manifests/{}", tiny.layer);
    let (response, _) = ask(&tiny, "GET", &uri, None).await;
    assert_eq!(response.status(), 404, "a layer is no manifest");
}

#[tokio::test]
async fn head_says_the_length_and_sends_nothing() {
    let tiny = tiny();
    for uri in ["/v2/pause/manifests/3.8".to_owned(), format!("/v2/pause/blobs/{}", tiny.layer)] {
        let (got, body) = ask(&tiny, "GET", &uri, None).await;
        let (head, nothing) = ask(&tiny, "HEAD", &uri, None).await;
        assert_eq!(head.status(), 200, "{uri}");
        assert_eq!(head.headers(), got.headers(), "{uri}");
        assert_eq!(header(&head, "content-length"), body.len().to_string());
        assert!(nothing.is_empty());
    }
}

#[tokio::test]
async fn a_blob_is_sent_whole_or_from_where_the_client_left_off() {
    let tiny = tiny();
    let uri = format!("/v2/pause/blobs/{}", tiny.layer);
    let (response, body) = ask(&tiny, "GET", &uri, None).await;
    assert_eq!((response.status().as_u16(), body.as_slice()), (200, b"0123456789".as_slice()));
    assert_eq!(header(&response, "docker-content-digest"), tiny.layer);
    for (range, content, sent) in [
        ("bytes=4-", "bytes 4-9/10", "456789"),
        ("bytes=2-3", "bytes 2-3/10", "23"),
        ("bytes=8-99", "bytes 8-9/10", "89"),
        ("bytes=-3", "bytes 7-9/10", "789"),
    ] {
        let (response, body) = ask(&tiny, "GET", &uri, Some(range)).await;
        assert_eq!((response.status().as_u16(), String::from_utf8(body).unwrap().as_str()), (206, sent), "{range}");
        assert_eq!(header(&response, "content-range"), content);
        assert_eq!(header(&response, "content-length"), sent.len().to_string());
    }
    let (response, _) = ask(&tiny, "GET", &uri, Some("bytes=10-")).await;
    assert_eq!(response.status(), 416);
    let (response, body) = ask(&tiny, "GET", &uri, Some("bytes=0-1,3-4")).await;
    assert_eq!((response.status().as_u16(), body.len()), (200, 10), "several ranges get everything");
}

#[tokio::test]
async fn what_is_not_there_or_not_allowed_is_said_in_the_words_of_the_api() {
    let tiny = tiny();
    let absent = format!("/v2/pause/blobs/sha256:{}", "0".repeat(64));
    for (method, uri, status, expected) in [
        ("GET", absent.as_str(), 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/pause/blobs/sha256:../../index.json", 400, "DIGEST_INVALID"),
        ("GET", "/v2/pause/manifests/nope", 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/pause/manifests/..%2F..", 404, "MANIFEST_UNKNOWN"),
        ("GET", "/elsewhere", 404, "NAME_UNKNOWN"),
        ("PUT", "/v2/pause/manifests/3.8", 405, "UNSUPPORTED"),
        ("POST", "/v2/pause/blobs/uploads/", 405, "UNSUPPORTED"),
    ] {
        let (response, body) = ask(&tiny, method, uri, None).await;
        assert_eq!((response.status().as_u16(), code(&body).as_str()), (status, expected), "{method} {uri}");
    }
    let (response, body) = ask(&tiny, "GET", "/v2/", None).await;
    assert_eq!((response.status().as_u16(), body.as_slice()), (200, b"{}".as_slice()));
    assert_eq!(header(&response, "docker-distribution-api-version"), "registry/2.0");
}

#[tokio::test]
async fn a_layout_that_cannot_be_read_is_an_error_of_the_server() {
    let tiny = tiny();
    std::fs::write(tiny.folder.path().join("index.json"), "{").unwrap();
    let (response, _) = ask(&tiny, "GET", "/v2/pause/manifests/3.8", None).await;
    assert_eq!(response.status(), 500);
}

#[tokio::test]
async fn no_answer_names_a_path_of_the_host() {
    let tiny = tiny();
    let folder = tiny.folder.path().to_string_lossy().into_owned();
    let absent = format!("/v2/pause/blobs/sha256:{}", "0".repeat(64));
    let addresses = ["/v2/pause/manifests/nope", "/v2/pause/manifests/nope?ns=gcr.io", &absent, "/elsewhere"];
    for broken in [false, true] {
        if broken {
            std::fs::write(tiny.folder.path().join("index.json"), "{").unwrap();
        }
        for uri in addresses {
            let (response, body) = ask(&tiny, "GET", uri, None).await;
            let said = format!("{:?} {}", response.headers(), String::from_utf8_lossy(&body));
            assert!(!said.contains(&folder) && !said.contains("/blobs/sha256/"), "{uri}: {said}");
        }
    }
}
