//! The registry's listener.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use stdx::tasks::TaskSet;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::layout::Layout;
use super::respond::respond;

/// A node pulls a few layers at once; more clients wait in the kernel's queue.
const CONNECTIONS: usize = 128;
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves a layout until the future is dropped.
pub async fn serve(listener: TcpListener, layout: Layout) {
    let layout = Arc::new(layout);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskSet::new("registry");
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "registry cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let layout = Arc::clone(&layout);
        connections.spawn("connection", async move {
            let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
                let layout = Arc::clone(&layout);
                async move {
                    let (head, _) = request.into_parts();
                    let response = respond(&layout, &head).await;
                    tracing::info!(method = %head.method, uri = %head.uri, status = response.status().as_u16(), "request");
                    Ok::<_, Infallible>(response)
                }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "connection ended");
            }
            drop(place);
        });
    }
}
