//! Sockets without a network: a server in memory that answers each message of a link's client.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, mpsc};

use crate::client::Destination;
use crate::code::Code;
use crate::message::{Message, MessageType};
use crate::socket::{LinkAddress, Socket, SocketError, Sockets};

/// What the server of a link answers with.
#[derive(Debug, Clone)]
pub struct FakeServer {
    /// The address that it grants.
    pub address: Ipv4Addr,
    /// Further options of offers and acknowledgements, by code.
    pub options: Vec<(Code, Vec<u8>)>,
    /// Whether it refuses requests.
    pub refuses: bool,
}

/// Links with or without a server; clones share them.
#[derive(Debug, Clone, Default)]
pub struct FakeSockets {
    servers: Arc<Mutex<HashMap<String, FakeServer>>>,
    heard: Arc<Mutex<Vec<(String, Message, Destination)>>>,
}

impl FakeSockets {
    /// Gives a link a server, or another one.
    pub fn serve(&self, link: &str, server: FakeServer) {
        self.servers.lock().insert(link.to_owned(), server);
    }

    /// Takes the server of a link away.
    pub fn silence(&self, link: &str) {
        self.servers.lock().remove(link);
    }

    /// The messages that clients have sent, with their links.
    #[must_use]
    pub fn heard(&self) -> Vec<(String, Message, Destination)> {
        self.heard.lock().clone()
    }
}

#[async_trait]
impl Sockets for FakeSockets {
    async fn open(&self, link: &LinkAddress) -> Result<Box<dyn Socket>, SocketError> {
        // As many as a client can cause before it reads.
        let (sender, receiver) = mpsc::channel(16);
        let link = link.name.clone();
        Ok(Box::new(FakeSocket { link, network: self.clone(), sender, receiver: AsyncMutex::new(receiver) }))
    }
}

struct FakeSocket {
    link: String,
    network: FakeSockets,
    sender: mpsc::Sender<Vec<u8>>,
    receiver: AsyncMutex<mpsc::Receiver<Vec<u8>>>,
}

#[async_trait]
impl Socket for FakeSocket {
    async fn send(&self, message: &[u8], to: Destination) -> Result<(), SocketError> {
        let Ok(message) = Message::decode(message) else {
            return Err(SocketError::new("sending", &self.link, std::io::ErrorKind::InvalidData));
        };
        self.network.heard.lock().push((self.link.clone(), message.clone(), to));
        let server = self.network.servers.lock().get(&self.link).cloned();
        if let Some(answer) = server.and_then(|server| server.answer(&message)) {
            self.sender.try_send(answer.encode()).ok();
        }
        Ok(())
    }

    async fn receive(&self) -> Result<Vec<u8>, SocketError> {
        let closed = || SocketError::new("receiving", &self.link, std::io::ErrorKind::BrokenPipe);
        self.receiver.lock().await.recv().await.ok_or_else(closed)
    }
}

impl FakeServer {
    fn answer(&self, message: &Message) -> Option<Message> {
        let kind = match message.kind()? {
            MessageType::Discover => MessageType::Offer,
            MessageType::Request if self.refuses => MessageType::Nak,
            MessageType::Request => MessageType::Ack,
            _ => return None,
        };
        let mut answer = message.reply().of(kind).with(Code::ServerId, [10, 0, 2, 2]);
        if kind != MessageType::Nak {
            answer.yiaddr = self.address;
            answer = answer.with(Code::LeaseTime, 600u32.to_be_bytes());
            for (code, value) in &self.options {
                answer = answer.with(*code, value.clone());
            }
        }
        Some(answer)
    }
}
