//! TCP listeners without TLS, for servers whose messages are sealed end to end. What one source opens beyond its share is
//! closed immediately, as over TLS.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use stdx::tasks::{Task, TaskSet};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::connection::{BACKLOG, Connection, Place, accept};
use crate::limiter::{ConnectionLimiter, Limits};
use crate::peer::PeerInfo;

/// A peer that has sent nothing by then is dropped: HTTP/2 clients send first.
const FIRST_BYTE: Duration = Duration::from_secs(5);

/// A connection with a first byte from its peer.
pub type PlainConnection = Connection<TcpStream>;

/// Connections of a listener. Dropping it closes the listener.
#[derive(Debug)]
pub struct PlainIncoming {
    connections: mpsc::Receiver<PlainConnection>,
    _accepting: Task<()>,
}

impl PlainIncoming {
    /// Starts accepting. Must be called in a runtime.
    #[must_use]
    pub fn new(listener: TcpListener, limits: Limits) -> Self {
        let (sender, connections) = mpsc::channel(BACKLOG);
        let accepting = accept_forever(listener, ConnectionLimiter::new(limits), sender);
        Self { connections, _accepting: stdx::tasks::spawn("plain accept", accepting) }
    }
}

impl Stream for PlainIncoming {
    type Item = std::io::Result<PlainConnection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}

async fn accept_forever(listener: TcpListener, open: ConnectionLimiter, sender: mpsc::Sender<PlainConnection>) {
    let silent = TaskSet::new("connections without a byte");
    loop {
        let (stream, address) = accept(&listener).await;
        // Dropping the stream closes it. This is said at debug: a flood must not flood the log as well.
        let peer = PeerInfo { address, identity: None };
        let permit = match open.admit(&peer) {
            Ok(permit) => permit,
            Err(refusal) => {
                tracing::debug!(peer = %address, %refusal, "closed a connection");
                continue;
            }
        };
        let sender = sender.clone();
        silent.spawn("first byte", async move {
            let spoke = tokio::time::timeout(FIRST_BYTE, stream.readable()).await;
            if matches!(spoke, Ok(Ok(()))) && stream.set_nodelay(true).is_ok() {
                // The receiver is dropped only with the server.
                drop(sender.send(Connection::new(stream, peer, Place::counted(permit))).await);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tonic::transport::server::Connected as _;

    use super::*;

    #[tokio::test]
    async fn a_source_keeps_its_share_and_the_next_connection_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut incoming = PlainIncoming::new(listener, Limits { per_source: 1, ..Limits::CLUSTERS });
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(b"x").await.unwrap();
        let served = incoming.next().await.unwrap().unwrap();
        assert!(served.connect_info().address.ip().is_loopback());
        let mut second = TcpStream::connect(address).await.unwrap();
        let read = tokio::time::timeout(Duration::from_secs(20), second.read(&mut [0])).await.expect("it stays open");
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        drop(served);
        let mut third = TcpStream::connect(address).await.unwrap();
        third.write_all(b"x").await.unwrap();
        tokio::time::timeout(Duration::from_secs(20), incoming.next()).await.expect("its share is free again");
    }
}
