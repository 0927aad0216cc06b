//! An HTTP server on loopback from which the kubelet takes static pods, so that no file is needed.
//!
//! The kubelet asks again and again. A connection that was given a list is answered when the list is another one, or after
//! [`HOLD`]: so the kubelet sees a change at once and asks seldom. Whoever asks for the first time is answered at once.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use serde_json::{Value, json};
use stdx::tasks::TaskSet;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

/// Deadline of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer that would be the same is held back. The kubelet gives up after 10 s.
const HOLD: Duration = Duration::from_secs(5);

/// Listens until dropped; connections end with it.
#[derive(Debug)]
pub struct StaticPodServer {
    address: SocketAddr,
    list: watch::Sender<Bytes>,
    _tasks: TaskSet,
}

impl StaticPodServer {
    /// Serves these pods on a port that the kernel chooses.
    ///
    /// # Errors
    /// Loopback cannot be listened on.
    pub async fn start(pods: &[Value]) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let list = watch::Sender::new(pod_list(pods));
        let tasks = TaskSet::new("static pod server");
        let (listener, pods) = (Arc::new(listener), list.subscribe());
        tasks.keep("accept", move || accept(Arc::clone(&listener), pods.clone()));
        Ok(Self { address, list, _tasks: tasks })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves these from now on.
    pub fn set_pods(&self, pods: &[Value]) {
        let list = pod_list(pods);
        self.list.send_if_modified(|known| {
            let changed = *known != list;
            *known = list;
            changed
        });
    }
}

fn pod_list(pods: &[Value]) -> Bytes {
    Bytes::from(json!({ "apiVersion": "v1", "kind": "PodList", "items": pods }).to_string())
}

async fn accept(listener: Arc<TcpListener>, list: watch::Receiver<Bytes>) {
    let connections = TaskSet::new("static pod server connections");
    loop {
        match listener.accept().await {
            Ok((stream, _peer)) => {
                connections.spawn("connection", serve(stream, list.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "static pod server cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, list: watch::Receiver<Bytes>) {
    // The last response on this connection.
    let given: Arc<Mutex<Option<Bytes>>> = Arc::default();
    let service = service_fn(move |_request| {
        let (mut list, given) = (list.clone(), Arc::clone(&given));
        async move {
            let last = given.lock().clone();
            if let Some(last) = last {
                // The same list again when nothing changed in time.
                let _ = timeout(HOLD, list.wait_for(|list| *list != last)).await;
            }
            let body = list.borrow().clone();
            *given.lock() = Some(body.clone());
            let mut response = Response::new(Full::new(body));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Ok::<_, Infallible>(response)
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection to the static pod server broke");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;

    /// One request on a connection that stays; the names of the pods in the answer.
    async fn ask(stream: &mut TcpStream) -> String {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        // The list ends the answer.
        while !answer.ends_with('}') {
            let mut part = [0; 4096];
            let length = stream.read(&mut part).await.unwrap();
            assert_ne!(length, 0, "closed after {answer:?}");
            answer.push_str(std::str::from_utf8(&part[..length]).unwrap());
        }
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_comes_at_once_and_the_next_with_the_next_list() {
        let server = StaticPodServer::start(&[json!({ "kind": "Pod", "name": "one" })]).await.unwrap();
        let mut kubelet = TcpStream::connect(server.address()).await.unwrap();
        let begun = Instant::now();
        assert!(ask(&mut kubelet).await.contains("one"));
        assert_eq!(begun.elapsed(), Duration::ZERO);

        let change = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            server.set_pods(&[json!({ "kind": "Pod", "name": "two" })]);
        };
        let (answer, ()) = tokio::join!(ask(&mut kubelet), change);
        assert!(answer.contains("two"), "{answer}");
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
        let mut another = TcpStream::connect(server.address()).await.unwrap();
        assert!(ask(&mut another).await.contains("two"));
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_unchanged_list_is_answered_before_the_kubelet_gives_up() {
        let server = StaticPodServer::start(&[]).await.unwrap();
        let mut kubelet = TcpStream::connect(server.address()).await.unwrap();
        ask(&mut kubelet).await;
        let begun = Instant::now();
        ask(&mut kubelet).await;
        assert_eq!(begun.elapsed(), HOLD);
    }
}
