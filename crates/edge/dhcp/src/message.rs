//! The message of RFC 2131: fixed fields and options, encoded and decoded.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::code::Code;

/// The largest message that is taken up: more does not fit into an Ethernet frame.
const MAX_SIZE: usize = 1500;
/// Fixed fields and the cookie.
const HEADER: usize = 240;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Some relays drop shorter messages (RFC 1542).
const MIN_SIZE: usize = 300;
/// Ethernet.
const HARDWARE_TYPE: u8 = 1;
const HARDWARE_LENGTH: u8 = 6;

/// The sender of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// A client.
    Request,
    /// A server.
    Reply,
}

/// The kind of a message (option 53).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of RFC 2131")]
pub enum MessageType {
    Discover,
    Offer,
    Request,
    Decline,
    Ack,
    Nak,
    Release,
    Inform,
}

const TYPES: [MessageType; 8] = [
    MessageType::Discover,
    MessageType::Offer,
    MessageType::Request,
    MessageType::Decline,
    MessageType::Ack,
    MessageType::Nak,
    MessageType::Release,
    MessageType::Inform,
];

impl MessageType {
    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        TYPES.iter().position(|known| *known == self).and_then(|at| u8::try_from(at + 1).ok()).unwrap_or_default()
    }
}

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum DecodeError {
    #[error("DHCP message of {0} bytes: there must be 240 to 1500")]
    Size(usize),
    #[error("DHCP message of the unknown operation {0}")]
    Op(u8),
    #[error("DHCP message for hardware of type {kind} with addresses of {length} bytes: only Ethernet is supported")]
    Hardware { kind: u8, length: u8 },
    #[error("DHCP message without its magic cookie")]
    Cookie,
    #[error("DHCP option {0} ends after the end of its field")]
    Option(u8),
}

/// A message. Options that were split (RFC 3396) are joined; each code is there once.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of RFC 2131")]
pub struct Message {
    pub op: Op,
    pub xid: u32,
    pub secs: u16,
    /// Whether the server has to answer by broadcast.
    pub broadcast: bool,
    pub ciaddr: Ipv4Addr,
    pub yiaddr: Ipv4Addr,
    pub siaddr: Ipv4Addr,
    pub giaddr: Ipv4Addr,
    pub chaddr: [u8; 6],
    /// The boot file of the fixed field, for servers of network boots.
    pub file: Vec<u8>,
    pub options: BTreeMap<u8, Vec<u8>>,
}

impl Message {
    /// A request of a client without options.
    #[must_use]
    pub const fn request(xid: u32, chaddr: [u8; 6]) -> Self {
        let none = Ipv4Addr::UNSPECIFIED;
        Self {
            op: Op::Request,
            xid,
            secs: 0,
            broadcast: false,
            ciaddr: none,
            yiaddr: none,
            siaddr: none,
            giaddr: none,
            chaddr,
            file: Vec::new(),
            options: BTreeMap::new(),
        }
    }

    /// An answer to this one, without options.
    #[must_use]
    pub fn reply(&self) -> Self {
        Self { op: Op::Reply, broadcast: self.broadcast, giaddr: self.giaddr, ..Self::request(self.xid, self.chaddr) }
    }

    /// With an option; its value may be longer than 255 bytes.
    #[must_use]
    pub fn with(mut self, code: Code, value: impl Into<Vec<u8>>) -> Self {
        self.options.insert(code.number(), value.into());
        self
    }

    /// Of that kind.
    #[must_use]
    pub fn of(self, kind: MessageType) -> Self {
        self.with(Code::MessageType, [kind.number()])
    }

    /// The value of an option.
    #[must_use]
    pub fn option(&self, code: Code) -> Option<&[u8]> {
        self.options.get(&code.number()).map(Vec::as_slice)
    }

    /// Its kind, if it is one of DHCP.
    #[must_use]
    pub fn kind(&self) -> Option<MessageType> {
        let [number] = self.option(Code::MessageType)? else { return None };
        TYPES.get(usize::from(*number).checked_sub(1)?).copied()
    }

    /// The bytes on the wire. A boot file is cut to its field.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let op = match self.op {
            Op::Request => 1,
            Op::Reply => 2,
        };
        let mut bytes = vec![op, HARDWARE_TYPE, HARDWARE_LENGTH, 0];
        bytes.extend(self.xid.to_be_bytes());
        bytes.extend(self.secs.to_be_bytes());
        bytes.extend(if self.broadcast { [0x80, 0] } else { [0, 0] });
        for address in [self.ciaddr, self.yiaddr, self.siaddr, self.giaddr] {
            bytes.extend(address.octets());
        }
        bytes.extend(self.chaddr);
        bytes.resize(108, 0);
        bytes.extend(self.file.iter().take(128));
        bytes.resize(236, 0);
        bytes.extend(COOKIE);
        // The kind comes first: some servers expect it there.
        let (kind, others): (Vec<_>, Vec<_>) =
            self.options.iter().partition(|(code, _)| **code == Code::MessageType.number());
        for (code, value) in kind.into_iter().chain(others) {
            if value.is_empty() {
                bytes.extend([*code, 0]);
            }
            for part in value.chunks(255) {
                bytes.extend([*code, u8::try_from(part.len()).unwrap_or(u8::MAX)]);
                bytes.extend(part);
            }
        }
        bytes.push(Code::End.number());
        bytes.resize(bytes.len().max(MIN_SIZE), 0);
        bytes
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`DecodeError`]; nothing is taken of a message with a broken option.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_SIZE {
            return Err(DecodeError::Size(bytes.len()));
        }
        let (header, options) = bytes.split_first_chunk::<HEADER>().ok_or(DecodeError::Size(bytes.len()))?;
        let op = match header[0] {
            1 => Op::Request,
            2 => Op::Reply,
            other => return Err(DecodeError::Op(other)),
        };
        if (header[1], header[2]) != (HARDWARE_TYPE, HARDWARE_LENGTH) {
            return Err(DecodeError::Hardware { kind: header[1], length: header[2] });
        }
        if header[236..] != COOKIE {
            return Err(DecodeError::Cookie);
        }
        let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
        let mut chaddr = [0; 6];
        chaddr.copy_from_slice(&header[28..34]);
        let mut message = Self {
            op,
            xid: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            secs: u16::from_be_bytes([header[8], header[9]]),
            broadcast: header[10] & 0x80 != 0,
            ciaddr: address(12),
            yiaddr: address(16),
            siaddr: address(20),
            giaddr: address(24),
            chaddr,
            file: Vec::new(),
            options: BTreeMap::new(),
        };
        read_options(options, &mut message.options)?;
        let (server_name, file) = (&header[44..108], &header[108..236]);
        // The two fields may hold options instead.
        let overload = message.options.remove(&Code::Overload.number());
        let overload = overload.and_then(|value| value.first().copied()).unwrap_or_default();
        if overload & 1 != 0 {
            read_options(file, &mut message.options)?;
        } else {
            message.file = file.iter().copied().take_while(|byte| *byte != 0).collect();
        }
        if overload & 2 != 0 {
            read_options(server_name, &mut message.options)?;
        }
        message.options.remove(&Code::Overload.number());
        Ok(message)
    }
}

fn read_options(mut bytes: &[u8], options: &mut BTreeMap<u8, Vec<u8>>) -> Result<(), DecodeError> {
    while let Some((code, rest)) = bytes.split_first() {
        bytes = rest;
        if *code == Code::Pad.number() {
            continue;
        }
        if *code == Code::End.number() {
            break;
        }
        let (length, rest) = bytes.split_first().ok_or(DecodeError::Option(*code))?;
        let (value, rest) = rest.split_at_checked(usize::from(*length)).ok_or(DecodeError::Option(*code))?;
        options.entry(*code).or_default().extend(value);
        bytes = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    #[test]
    fn an_encoded_message_is_read_back_and_is_long_enough_for_relays() {
        let mut message = Message::request(7, MAC).of(MessageType::Discover).with(Code::HostName, *b"node");
        message.secs = 3;
        message.broadcast = true;
        message.file = b"boot.ipxe".to_vec();
        let bytes = message.encode();
        assert_eq!(bytes.len(), MIN_SIZE);
        assert_eq!(&bytes[240..243], [53, 1, 1], "the kind comes first");
        assert_eq!(Message::decode(&bytes).unwrap(), message);
        assert_eq!(message.kind(), Some(MessageType::Discover));
    }

    #[test]
    fn a_long_option_is_split_and_joined_again() {
        let message = Message::request(7, MAC).with(Code::ClasslessRoutes, vec![9; 600]);
        let read = Message::decode(&message.encode()).unwrap();
        assert_eq!(read.option(Code::ClasslessRoutes), Some(&[9; 600][..]));
    }

    #[test]
    fn options_may_continue_in_the_fields_of_file_and_server_name() {
        let mut bytes = Message::request(7, MAC).with(Code::Overload, [3]).encode();
        bytes[108..113].copy_from_slice(&[12, 2, b'n', b'o', 255]);
        bytes[44..49].copy_from_slice(&[12, 2, b'd', b'e', 255]);
        let read = Message::decode(&bytes).unwrap();
        assert_eq!(read.option(Code::HostName), Some(&b"node"[..]));
        assert!(read.file.is_empty());
    }

    #[test]
    fn what_is_no_message_is_refused_by_its_reason() {
        let good = Message::request(7, MAC).of(MessageType::Discover).encode();
        let broken = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Message::decode(&bytes).unwrap_err()
        };
        assert_eq!(Message::decode(&good[..239]).unwrap_err(), DecodeError::Size(239));
        assert_eq!(Message::decode(&vec![0; 1501]).unwrap_err(), DecodeError::Size(1501));
        assert_eq!(broken(0, 3), DecodeError::Op(3));
        assert_eq!(broken(2, 16), DecodeError::Hardware { kind: 1, length: 16 });
        assert_eq!(broken(236, 0), DecodeError::Cookie);
        assert_eq!(broken(241, 200), DecodeError::Option(53));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_read_can_be_written(bytes in prop::collection::vec(any::<u8>(), 0..700), valid: bool) {
            let mut bytes = bytes;
            if valid && bytes.len() > HEADER {
                bytes[..3].copy_from_slice(&[2, 1, 6]);
                bytes[236..240].copy_from_slice(&COOKIE);
            }
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert_eq!(Message::decode(&message.encode()).unwrap(), message);
            }
        }
    }
}
