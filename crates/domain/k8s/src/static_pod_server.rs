//! `k8s.StaticPodServerController`: serves static pods to the kubelet over HTTP on loopback, so that no file is needed.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use controller::{Controller, Ctx, Input, Output, ReconcileError};
use http_body_util::Full;
use hyper::Response;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::RwLock;
use resources::k8s::{StaticPod, StaticPodServerStatus};
use serde_json::{Value, json};
use stdx::tasks::TaskSet;
use tokio::net::{TcpListener, TcpStream};

/// A client that does not finish its request is let go.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

type Served = Arc<RwLock<Bytes>>;

#[derive(Debug, Default)]
pub struct StaticPodServerController {
    server: Option<Server>,
}

#[derive(Debug)]
struct Server {
    address: SocketAddr,
    served: Served,
    _tasks: TaskSet,
}

#[async_trait]
impl Controller for StaticPodServerController {
    fn name(&self) -> &'static str {
        "k8s.StaticPodServerController"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input::weak::<StaticPod>()]
    }

    fn outputs(&self) -> Vec<Output> {
        vec![Output::exclusive::<StaticPodServerStatus>()]
    }

    async fn reconcile(&mut self, ctx: &mut Ctx) -> Result<(), ReconcileError> {
        let pods: Vec<Value> = ctx.list::<StaticPod>()?.iter().map(|pod| Value::Object(pod.pod.clone())).collect();
        let list = pod_list(&pods);
        let server = match &self.server {
            Some(server) => {
                *server.served.write() = list;
                server
            }
            None => self.server.insert(Server::start(list).await?),
        };
        let url = format!("http://{}", server.address);
        ctx.put(StaticPodServerStatus::ID, StaticPodServerStatus { url })?;
        Ok(())
    }
}

fn pod_list(pods: &[Value]) -> Bytes {
    Bytes::from(json!({ "apiVersion": "v1", "kind": "PodList", "items": pods }).to_string())
}

impl Server {
    async fn start(list: Bytes) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let served = Arc::new(RwLock::new(list));
        let tasks = TaskSet::new("static pod server");
        tasks.spawn("accept", accept(listener, Arc::clone(&served)));
        Ok(Self { address, served, _tasks: tasks })
    }
}

async fn accept(listener: TcpListener, served: Served) {
    let connections = TaskSet::new("static pod server connections");
    loop {
        match listener.accept().await {
            Ok((stream, _peer)) => {
                connections.spawn("connection", serve(stream, Arc::clone(&served)));
            }
            Err(error) => {
                tracing::warn!(%error, "static pod server cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, served: Served) {
    let service = service_fn(move |_request| {
        let body = served.read().clone();
        async move {
            let mut response = Response::new(Full::new(body));
            response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
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
