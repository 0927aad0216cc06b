//! A connection of a client: its handshake, its calls, and signals to it.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::auth::{Auth, Step};
use crate::driver::{self, Driver};
use crate::lock::Logind;
use crate::manager;
use crate::message::{self, Call, FIXED, MalformedError, Message, Value};
use crate::reply::{ACCESS_DENIED, Reply, SERVICE_UNKNOWN};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may take to take a message.
const SEND: Duration = Duration::from_secs(5);
const CHUNK: usize = 4096;

/// Why a client is not talked to any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("it does not say who it is")]
    Handshake,
    #[error("a message cannot be read")]
    Message(#[from] MalformedError),
    #[error("talking to it")]
    Io(#[from] io::Error),
    #[error("it takes nothing")]
    Stuck,
}

pub(crate) struct Connection {
    stream: UnixStream,
    logind: Logind,
    driver: Driver,
    guid: String,
    /// What came and is no whole message yet.
    incoming: Vec<u8>,
    serial: u32,
}

impl Connection {
    /// `name`: its unique one; `guid`: that of the bus.
    pub(crate) fn new(stream: UnixStream, logind: Logind, name: String, guid: String) -> Self {
        let driver = Driver::new(name, guid.clone());
        Self { stream, logind, driver, guid, incoming: Vec::new(), serial: 0 }
    }

    /// Serves it until it goes.
    pub(crate) async fn serve(mut self) -> Result<(), ClientError> {
        let mut preparing = self.logind.preparing();
        preparing.borrow_and_update();
        timeout(HANDSHAKE, self.handshake()).await.map_err(|_| ClientError::Handshake)??;
        let mut chunk = [0; CHUNK];
        loop {
            while let Some(call) = self.take_message()? {
                self.answer(&call).await?;
            }
            // Both arms are cancel-safe; the first one ends when the client goes.
            tokio::select! {
                read = self.stream.read(&mut chunk) => match read? {
                    0 => return Ok(()),
                    read => self.incoming.extend(chunk.iter().take(read)),
                },
                changed = preparing.changed() => {
                    let is_preparing = changed.is_ok() && *preparing.borrow_and_update();
                    if is_preparing && self.driver.wants(manager::PREPARE_FOR_SHUTDOWN) {
                        let body = vec![Value::Bool(true)];
                        let (path, interface) = (manager::PATH, manager::INTERFACE);
                        let signal =
                            Message::signal(driver::LOGIND, path, interface, manager::PREPARE_FOR_SHUTDOWN, body);
                        self.send(&signal, None).await?;
                    }
                }
            }
        }
    }

    async fn handshake(&mut self) -> Result<(), ClientError> {
        let user = self.stream.peer_cred()?.uid();
        let mut auth = Auth::new(user, self.guid.clone());
        if self.stream.read_u8().await? != 0 {
            return Err(ClientError::Handshake);
        }
        let mut chunk = [0; CHUNK];
        loop {
            while let Some(line) = Auth::take_line(&mut self.incoming).map_err(|()| ClientError::Handshake)? {
                match auth.line(&line) {
                    Step::Answer(answer) => self.stream.write_all(format!("{answer}\r\n").as_bytes()).await?,
                    Step::Begin => return Ok(()),
                    Step::Refuse => return Err(ClientError::Handshake),
                }
            }
            match self.stream.read(&mut chunk).await? {
                0 => return Err(ClientError::Handshake),
                read => self.incoming.extend(chunk.iter().take(read)),
            }
        }
    }

    /// A whole message of what came.
    fn take_message(&mut self) -> Result<Option<Call>, MalformedError> {
        let Some(fixed) = self.incoming.first_chunk::<FIXED>() else { return Ok(None) };
        let length = message::length(fixed)?;
        if self.incoming.len() < length {
            return Ok(None);
        }
        let message: Vec<u8> = self.incoming.drain(..length).collect();
        message::read(&message).map(Some)
    }

    async fn answer(&mut self, call: &Call) -> Result<(), ClientError> {
        if !call.is_call {
            return Ok(());
        }
        let (sender, reply) = self.reply(call);
        if !call.wants_reply {
            return Ok(());
        }
        let (message, descriptor) = match reply {
            Reply::Values(values) => (Message::reply(call, sender, values), None),
            Reply::Descriptor(descriptor) => (Message::reply(call, sender, vec![Value::Descriptor]), Some(descriptor)),
            Reply::Error { name, text } => (Message::error(call, sender, name, &text), None),
        };
        let message = message.to(self.driver.name());
        self.send(&message, descriptor).await
    }

    /// The answer, and whose it is.
    fn reply(&mut self, call: &Call) -> (&'static str, Reply) {
        let destination = call.destination.as_str();
        if !self.driver.is_greeted() && call.member != "Hello" {
            return (driver::NAME, Reply::error(ACCESS_DENIED, "a client says Hello first"));
        }
        let sender = match destination {
            "" | driver::NAME => driver::NAME,
            manager::NAME | driver::LOGIND => driver::LOGIND,
            _ => {
                let text = format!("nobody has the name {destination} on this bus");
                return (driver::NAME, Reply::error(SERVICE_UNKNOWN, text));
            }
        };
        if let Some(reply) = self.driver.peer(call) {
            return (sender, reply);
        }
        let reply = if sender == driver::NAME { self.driver.call(call) } else { manager::call(&self.logind, call) };
        (sender, reply)
    }

    async fn send(&mut self, message: &Message, descriptor: Option<OwnedFd>) -> Result<(), ClientError> {
        self.serial = self.serial.checked_add(1).unwrap_or(1);
        let bytes = message.bytes(self.serial);
        let sending = async {
            let sent = match &descriptor {
                Some(descriptor) => {
                    let send = || send_with(&self.stream, &bytes, descriptor);
                    self.stream.async_io(Interest::WRITABLE, send).await?
                }
                None => 0,
            };
            self.stream.write_all(bytes.get(sent..).unwrap_or_default()).await
        };
        Ok(timeout(SEND, sending).await.map_err(|_| ClientError::Stuck)??)
    }
}

/// Sends bytes and a copy of the descriptor with the first of them; returns how many were sent.
fn send_with(stream: &UnixStream, bytes: &[u8], descriptor: &OwnedFd) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    Ok(rustix::net::sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}
