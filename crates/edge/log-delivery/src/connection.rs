//! A connection to a receiver: made when it is needed, and made anew after a failure.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::time::timeout;

use crate::endpoint::{Endpoint, Protocol};

/// How long connecting and sending may take (Talos 1.7).
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("resolving {0}")]
    Resolve(Endpoint, #[source] io::Error),
    #[error("{0} has no address")]
    NoAddress(Endpoint),
    #[error("sending to {0}")]
    Send(Endpoint, #[source] io::Error),
    #[error("{0} takes nothing within {SEND_TIMEOUT:?}")]
    Timeout(Endpoint),
    /// No other try can send it.
    #[error("a message of {bytes} bytes is too large for a packet to {endpoint}")]
    TooLarge { endpoint: Endpoint, bytes: usize },
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

#[derive(Debug)]
pub(crate) struct Connection {
    endpoint: Endpoint,
    stream: Option<Stream>,
}

impl Connection {
    /// Nothing is connected before the first message.
    pub(crate) const fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, stream: None }
    }

    /// Sends a message, whole or not at all as far as can be known: what a receiver had not read when it went is lost.
    pub(crate) async fn send(&mut self, message: &[u8]) -> Result<(), SendError> {
        let stream = self.stream.take().filter(is_open);
        let sending = async {
            let mut stream = match stream {
                Some(stream) => stream,
                None => connect(&self.endpoint).await?,
            };
            let sent = match &mut stream {
                Stream::Tcp(stream) => {
                    let line = [message, b"\n"].concat();
                    stream.write_all(&line).await
                }
                Stream::Udp(socket) => socket.send(message).await.map(drop),
            };
            sent.map(|()| stream).map_err(|error| {
                if error.raw_os_error() == Some(EMSGSIZE) {
                    return SendError::TooLarge { endpoint: self.endpoint.clone(), bytes: message.len() };
                }
                SendError::Send(self.endpoint.clone(), error)
            })
        };
        // A stream with half a message on it is not used again.
        self.stream =
            Some(timeout(SEND_TIMEOUT, sending).await.map_err(|_| SendError::Timeout(self.endpoint.clone()))??);
        Ok(())
    }
}

/// The kernel's number of "message too long" on every architecture that nodes have.
const EMSGSIZE: i32 = 90;

/// Receivers send nothing: a stream that can be read has ended.
fn is_open(stream: &Stream) -> bool {
    match stream {
        Stream::Tcp(stream) => {
            matches!(stream.try_read(&mut [0; 64]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
        }
        Stream::Udp(_) => true,
    }
}

async fn connect(endpoint: &Endpoint) -> Result<Stream, SendError> {
    let addresses = lookup_host((endpoint.host.as_str(), endpoint.port)).await;
    let addresses = addresses.map_err(|error| SendError::Resolve(endpoint.clone(), error))?;
    let mut failed = SendError::NoAddress(endpoint.clone());
    for address in addresses {
        match connect_to(endpoint.protocol, address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = SendError::Send(endpoint.clone(), error),
        }
    }
    Err(failed)
}

async fn connect_to(protocol: Protocol, address: SocketAddr) -> io::Result<Stream> {
    match protocol {
        Protocol::Tcp => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Stream::Tcp(stream))
        }
        Protocol::Udp => {
            let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).await?;
            socket.connect(address).await?;
            Ok(Stream::Udp(socket))
        }
    }
}
