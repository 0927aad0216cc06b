//! TCP listeners without TLS, for servers whose messages are sealed end to end. What one source opens beyond its share is
//! closed immediately, as over TLS.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use stdx::tasks::{Task, TaskSet};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tonic::transport::server::Connected;

use crate::limiter::{ConnectionLimiter, ConnectionPermit, Limits};
use crate::peer::PeerInfo;

/// A peer that has sent nothing by then is dropped: HTTP/2 clients send first.
const FIRST_BYTE: Duration = Duration::from_secs(5);
/// Connections that may wait for the server; it takes them at once, so this is only a cushion.
const BACKLOG: usize = 16;
/// Pause after the kernel refused to accept, so that a lack of descriptors does not spin a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection with a first byte from its peer.
#[derive(Debug)]
pub struct PlainConnection {
    stream: TcpStream,
    address: SocketAddr,
    _permit: ConnectionPermit,
}

impl Connected for PlainConnection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        PeerInfo { address: self.address, identity: None }
    }
}

impl AsyncRead for PlainConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for PlainConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

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
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(error = %error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Dropping the stream closes it. This is said at debug: a flood must not flood the log as well.
        let permit = match open.admit(&PeerInfo { address, identity: None }) {
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
                drop(sender.send(PlainConnection { stream, address, _permit: permit }).await);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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
