//! The registry's listener and its limits. Every wait for a client has a deadline: the registry serves any host that
//! reaches it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use stdx::tasks::TaskSet;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::idle::IdleTimeout;
use super::layout::Layout;
use super::respond::{Withheld, respond, send};
use crate::boot::files::{BootFiles, Content};

/// All clients together; more wait in the kernel's queue.
const CONNECTIONS: usize = 128;
/// One client. A node pulls one image at a time with three layers of it at once, and its own images beside that; the rest is
/// room for the nodes next to it.
const CONNECTIONS_PER_CLIENT: usize = 32;
/// The longest request head is that of a blob with a namespace: a few hundred bytes.
const HEAD_BYTES: usize = 16 << 10;

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For a request's head, and between two requests of a connection.
    head: Duration,
    /// Without a byte in either direction while a response is sent.
    idle: Duration,
    /// For everything on one connection; a request that is being answered then may end first, for another `head`.
    connection: Duration,
}

impl Limits {
    /// A layer of 100 MB takes a second over a bridge; an hour is for a host that swaps.
    pub(super) const USUAL: Self =
        Self { head: Duration::from_secs(10), idle: Duration::from_secs(30), connection: Duration::from_secs(60 * 60) };
}

/// All that the registry's listener serves.
#[derive(Debug, Clone)]
pub struct Site {
    pub(crate) layout: Layout,
    /// Files that machines boot with; none where nodes are containers.
    pub(crate) boot: Option<BootFiles>,
}

impl Site {
    /// The images of a layout, and nothing else.
    #[must_use]
    pub const fn images(layout: Layout) -> Self {
        Self { layout, boot: None }
    }
}

/// Serves a site until the future is dropped.
pub async fn serve(listener: TcpListener, site: Site) {
    let site = Arc::new(site);
    let all = Arc::new(Semaphore::new(CONNECTIONS));
    let clients = Arc::new(Clients::default());
    let connections = TaskSet::new("registry");
    loop {
        let Ok(permit) = Arc::clone(&all).acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok((stream, peer)) => (stream, peer.ip()),
            Err(error) => {
                tracing::warn!(%error, "registry cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(client) = Clients::admit(&clients, peer) else {
            tracing::warn!(%peer, limit = CONNECTIONS_PER_CLIENT, "registry closes a surplus connection");
            continue;
        };
        let site = Arc::clone(&site);
        connections.spawn("connection", async move {
            serve_connection(stream, peer, site, Limits::USUAL).await;
            drop((client, permit));
        });
    }
}

/// Answers the requests of one connection until it is closed or a limit is reached.
async fn serve_connection<S>(stream: S, peer: IpAddr, site: Arc<Site>, limits: Limits)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let site = Arc::clone(&site);
        async move {
            // No request that is answered has a body; hyper closes the connection rather than read one.
            let (head, _) = request.into_parts();
            let response = match site.boot_file(peer, &head) {
                Some(content) => send(&content, &head).await,
                None => respond(&site.layout, &head).await,
            };
            // Nothing of a query matters, and the address of a configuration is a secret.
            let path =
                if response.extensions().get::<Withheld>().is_some() { "(a configuration)" } else { head.uri.path() };
            tracing::info!(%peer, method = %head.method, path, status = response.status().as_u16(), "request");
            Ok::<_, Infallible>(response)
        }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(HEAD_BYTES);
    let stream = TokioIo::new(IdleTimeout::new(stream, limits.idle));
    let mut connection = pin!(server.serve_connection(stream, service));
    // The limit is meant to cut a connection in the middle of a response.
    let ended = match tokio::time::timeout(limits.connection, connection.as_mut()).await {
        Ok(ended) => ended,
        Err(_) => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(limits.head, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %stdx::error_chain(&error), "connection ended");
    }
}

impl Site {
    fn boot_file(&self, peer: IpAddr, head: &http::request::Parts) -> Option<Content> {
        let boot = self.boot.as_ref().filter(|_| head.method == Method::GET || head.method == Method::HEAD)?;
        boot.find(peer, head.uri.path())
    }
}

/// How many connections each client has.
#[derive(Debug, Default)]
struct Clients(Mutex<HashMap<IpAddr, usize>>);

impl Clients {
    /// Counts one more connection of a client until the value is dropped; none when it has all it may have.
    fn admit(this: &Arc<Self>, client: IpAddr) -> Option<Admitted> {
        let mut counts = this.0.lock();
        let count = counts.entry(client).or_default();
        if *count >= CONNECTIONS_PER_CLIENT {
            return None;
        }
        *count += 1;
        Some(Admitted { clients: Arc::clone(this), client })
    }
}

#[derive(Debug)]
struct Admitted {
    clients: Arc<Clients>,
    client: IpAddr,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.clients.0.lock();
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio::time::Instant;

    use super::*;

    const LIMITS: Limits =
        Limits { head: Duration::from_secs(10), idle: Duration::from_secs(30), connection: Duration::from_secs(600) };

    /// A layout with one blob that no buffer holds.
    fn layout() -> (tempfile::TempDir, Layout, String) {
        let folder = tempfile::tempdir().unwrap();
        let hex = "a".repeat(64);
        std::fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        std::fs::write(folder.path().join("blobs/sha256").join(&hex), vec![b'x'; 4 << 20]).unwrap();
        let layout = Layout::new(folder.path());
        (folder, layout, format!("/v2/a/blobs/sha256:{hex}"))
    }

    fn connect(layout: &Layout) -> (DuplexStream, stdx::tasks::Task<()>) {
        let (client, server) = tokio::io::duplex(4096);
        let site = Site { layout: layout.clone(), boot: None };
        let served = serve_connection(server, IpAddr::from([10, 5, 0, 2]), Arc::new(site), LIMITS);
        (client, stdx::tasks::spawn("connection", served))
    }

    /// How many seconds the server kept the connection.
    async fn seconds(task: stdx::tasks::Task<()>) -> u64 {
        let began = Instant::now();
        tokio::time::timeout(Duration::from_secs(3600), task.join()).await.expect("the connection ends").unwrap();
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_finish_its_request_is_let_go() {
        let (_folder, layout, _) = layout();
        for beginning in [b"".as_slice(), b"GET /v2/ HT", b"GET /v2/ HTTP/1.1\r\nHost: a\r\n"] {
            let (mut client, task) = connect(&layout);
            client.write_all(beginning).await.unwrap();
            let took = seconds(task).await;
            assert!((9..=31).contains(&took), "{took} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_asks_nothing_more_is_let_go() {
        let (_folder, layout, _) = layout();
        let (mut client, task) = connect(&layout);
        client.write_all(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        let took = seconds(task).await;
        assert!((9..=31).contains(&took), "{took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_not_waited_for() {
        let (_folder, layout, _) = layout();
        let (mut client, task) = connect(&layout);
        client.write_all(b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 405");
        let took = seconds(task).await;
        assert!(took <= 31, "{took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_of_its_answer_is_let_go_and_a_slow_one_is_not() {
        let (_folder, layout, path) = layout();
        let (mut client, task) = connect(&layout);
        client.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut taken = vec![0; 4096];
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(20)).await;
            client.read_exact(&mut taken).await.unwrap();
        }
        let took = seconds(task).await;
        assert!((29..=31).contains(&took), "{took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_a_byte_now_and_then_is_let_go_in_the_end() {
        let (_folder, layout, path) = layout();
        let (mut client, task) = connect(&layout);
        client.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        let began = Instant::now();
        while client.read_u8().await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        // The rest of the pipe is read after its end.
        assert!(began.elapsed() < LIMITS.connection + LIMITS.head + Duration::from_secs(4200), "{:?}", began.elapsed());
        drop(client);
        task.join().await.unwrap();
    }

    #[test]
    fn one_client_leaves_room_for_others() {
        let clients = Arc::new(Clients::default());
        let greedy = IpAddr::from([10, 5, 0, 2]);
        let mut admitted: Vec<_> =
            std::iter::from_fn(|| Clients::admit(&clients, greedy)).take(CONNECTIONS + 1).collect();
        assert_eq!(admitted.len(), CONNECTIONS_PER_CLIENT);
        assert!(Clients::admit(&clients, IpAddr::from([10, 5, 0, 3])).is_some());
        admitted.pop();
        assert!(Clients::admit(&clients, greedy).is_some());
        drop(admitted);
        assert!(clients.0.lock().is_empty(), "clients that left are forgotten");
    }
}
