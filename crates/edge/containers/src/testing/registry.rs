//! A registry with one image of busybox in two layers: enough of HTTP and of the distribution API for pulls.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use serde_json::json;
use stdx::tasks::{Task, TaskSet};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The first byte of a client's greeting in TLS.
const TLS_HANDSHAKE: u8 = 22;
const NAME: &str = "test/busybox";

/// Media type and content by path.
type Files = HashMap<String, (&'static str, Vec<u8>)>;

/// A registry on loopback that serves until this is dropped.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    _serving: Task<()>,
}

impl Registry {
    /// A registry without authentication.
    pub async fn start() -> Self {
        Self::serve(None).await
    }

    /// A registry with basic authentication.
    pub async fn private(user: &str, password: &str) -> Self {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        Self::serve(Some(format!("Basic {pair}"))).await
    }

    async fn serve(authorization: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shop = Arc::new(ServedImage { files: files(), authorization });
        let serving = stdx::tasks::spawn("registry", async move {
            let connections = TaskSet::new("registry connections");
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shop = Arc::clone(&shop);
                connections.spawn("connection", async move { answer(stream, &shop).await });
            }
        });
        Self { address, _serving: serving }
    }

    /// Address and port.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The image without the registry's host.
    pub fn name(&self) -> String {
        format!("{NAME}:1")
    }

    /// The image.
    pub fn reference(&self) -> String {
        format!("{}/{}", self.address, self.name())
    }
}

struct ServedImage {
    files: Files,
    /// The required header.
    authorization: Option<String>,
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", stdx::hex(digest(&SHA256, bytes).as_ref()))
}

fn files() -> Files {
    let layers = [lower_layer(), upper_layer()];
    let architecture = sys::host::architecture();
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        // What pods have as their first process does nothing.
        "config": { "Entrypoint": ["/bin/busybox", "sleep", "1000000"], "Env": ["A=image", "B=image"] },
        "rootfs": { "type": "layers", "diff_ids": layers.each_ref().map(|layer| sha256(layer)) },
    });
    let config = serde_json::to_vec(&config).unwrap();
    let descriptor =
        |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": sha256(bytes), "size": bytes.len() });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": layers.each_ref().map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", layer)),
    });
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let blob = |bytes: &[u8]| format!("/v2/{NAME}/blobs/{}", sha256(bytes));
    let [lower, upper] = layers;
    HashMap::from([
        (blob(&config), ("application/octet-stream", config)),
        (blob(&lower), ("application/octet-stream", lower)),
        (blob(&upper), ("application/octet-stream", upper)),
        (format!("/v2/{NAME}/manifests/{}", sha256(&manifest)), (MANIFEST, manifest.clone())),
        (format!("/v2/{NAME}/manifests/1"), (MANIFEST, manifest)),
    ])
}

/// A file system of busybox, an empty /proc, and what the upper layer changes.
fn lower_layer() -> Vec<u8> {
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    layer(&[
        ("bin/", tar::EntryType::Directory, b""),
        ("proc/", tar::EntryType::Directory, b""),
        ("bin/busybox", tar::EntryType::Regular, &busybox),
        ("removed", tar::EntryType::Regular, b""),
        ("emptied/", tar::EntryType::Directory, b""),
        ("emptied/file", tar::EntryType::Regular, b""),
    ])
}

fn upper_layer() -> Vec<u8> {
    layer(&[
        (".wh.removed", tar::EntryType::Regular, b""),
        ("emptied/.wh..wh..opq", tar::EntryType::Regular, b""),
        ("emptied/new", tar::EntryType::Regular, b"upper"),
    ])
}

fn layer(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        archive.append_data(&mut header, path, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

async fn answer(stream: TcpStream, shop: &ServedImage) {
    let mut stream = BufReader::new(stream);
    // containerd tries TLS first and falls back to plain HTTP on such a response.
    if stream.fill_buf().await.is_ok_and(|bytes| bytes.first() == Some(&TLS_HANDSHAKE)) {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.ok();
        return;
    }
    loop {
        let mut request = String::new();
        // A disconnected client ends the connection.
        if !matches!(stream.read_line(&mut request).await, Ok(1..)) {
            return;
        }
        let mut authorization = None;
        loop {
            let mut header = String::new();
            if !matches!(stream.read_line(&mut header).await, Ok(1..)) {
                return;
            }
            match header.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                    authorization = Some(value.to_owned());
                }
                Some(_) => {}
                None => break,
            }
        }
        let mut words = request.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = target.split('?').next().unwrap_or_default();
        let (status, kind, content) = match shop.files.get(path) {
            _ if shop.authorization.is_some() && shop.authorization != authorization => {
                ("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"test\"", "text/plain", &b"who are you"[..])
            }
            Some((kind, content)) => ("200 OK", *kind, content.as_slice()),
            None => ("404 Not Found", "text/plain", &b"no such thing"[..]),
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", content.len());
        let content = if method == "HEAD" { &[] } else { content };
        if stream.write_all(head.as_bytes()).await.is_err() || stream.write_all(content).await.is_err() {
            return;
        }
    }
}
