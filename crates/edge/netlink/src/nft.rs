//! Address translation with nftables over netlink: nodes have no `nft` program.
//!
//! All rules are in one table of our own. It is replaced as a whole in one transaction, so that the rules are never
//! absent, and other tables (kube-proxy's, for instance) are never touched. The kernel processes a message before the
//! call that sends it returns, so nothing here blocks.

mod message;

use std::io;
use std::os::fd::OwnedFd;

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::NETFILTER, recv, send, socket_with,
};

use crate::{Masquerade, NetlinkError};

/// Larger than any message of the kernel.
const BUFFER: usize = 64 << 10;

/// A socket in the namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Nft(Mutex<Socket>);

#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    /// Sequence number of the next message. Replies carry that of their request.
    sequence: u32,
}

impl Nft {
    /// Opens a socket in the namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel has no nftables.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(NETFILTER))?;
        Ok(Self(Mutex::new(Socket { fd, sequence: 1 })))
    }

    /// Replaces the rules of our table with `wanted`; without rules there is no table. Returns whether anything
    /// changed.
    pub(crate) fn keep(&self, wanted: &[Masquerade]) -> Result<bool, NetlinkError> {
        let mut socket = self.0.lock();
        let listing = |error: Errno| NetlinkError::new("listing rules that masquerade pods", error);
        let present = socket.has_table().map_err(listing)?;
        if wanted.is_empty() {
            if present {
                let request = |sequence| message::without_table(sequence);
                socket.transact(request).map_err(|e| NetlinkError::new("removing rules that masquerade pods", e))?;
            }
            return Ok(present);
        }
        let comments: Vec<String> = wanted.iter().map(message::comment).collect();
        if present && socket.comments().map_err(listing)? == comments {
            return Ok(false);
        }
        let request = |sequence| message::with_rules(sequence, wanted);
        socket.transact(request).map_err(|error| NetlinkError::new("masquerading pods", error))?;
        Ok(true)
    }
}

impl Socket {
    fn has_table(&mut self) -> Result<bool, Errno> {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        self.send(&message::get_table(sequence))?;
        loop {
            for answer in message::answers(&self.receive()?) {
                match answer.result {
                    _ if answer.sequence != sequence => {}
                    Some(0) => return Ok(true),
                    Some(error) if error == Errno::NOENT.raw_os_error() => return Ok(false),
                    Some(error) => return Err(Errno::from_raw_os_error(error)),
                    None => {}
                }
            }
        }
    }

    /// The comments of the rules in our chain, in order.
    fn comments(&mut self) -> Result<Vec<String>, Errno> {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        self.send(&message::list_rules(sequence))?;
        let mut comments = Vec::new();
        loop {
            let bytes = self.receive()?;
            for answer in message::answers(&bytes).filter(|answer| answer.sequence == sequence) {
                match answer.result {
                    Some(0) => return Ok(comments),
                    Some(error) => return Err(Errno::from_raw_os_error(error)),
                    None => comments.push(message::comment_of(answer.payload).unwrap_or_default()),
                }
            }
        }
    }

    /// Sends a batch and reads the result of each message.
    fn transact(&mut self, batch: impl FnOnce(u32) -> message::Batch) -> Result<(), Errno> {
        let batch = batch(self.sequence);
        self.sequence = batch.next;
        self.send(&batch.bytes)?;
        let mut waiting = batch.asked;
        while !waiting.is_empty() {
            for answer in message::answers(&self.receive()?) {
                if let Some(error) = answer.result.filter(|_| waiting.contains(&answer.sequence)) {
                    if error != 0 {
                        return Err(Errno::from_raw_os_error(error));
                    }
                    waiting.retain(|sequence| *sequence != answer.sequence);
                }
            }
        }
        Ok(())
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        let sent = send(&self.fd, bytes, SendFlags::empty())?;
        if sent == bytes.len() { Ok(()) } else { Err(Errno::MSGSIZE) }
    }

    /// Reads the next datagram. The kernel owes a reply, so a missing one is an error.
    fn receive(&self) -> Result<Vec<u8>, Errno> {
        let mut buffer = vec![0; BUFFER];
        let (received, _) = recv(&self.fd, &mut buffer[..], RecvFlags::empty())?;
        buffer.truncate(received);
        Ok(buffer)
    }
}
