//! A file by TFTP (RFC 1350, block sizes of RFC 2348), for `talos.config=tftp://…`.
//!
//! [`Download`] is the protocol without I/O; [`fetch`] carries its packets. A server is whoever answers first from the address
//! that was asked; packets of others are ignored.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::Instant;

const PORT: u16 = 69;
/// Largest block that is asked for: it fits a frame of Ethernet.
const BLOCK: usize = 1428;
/// The block of servers that know no options.
const DEFAULT_BLOCK: usize = 512;
/// Until a packet is sent again; it doubles.
const RETRY: Duration = Duration::from_secs(1);
/// Sends of one packet without an answer.
const ATTEMPTS: u32 = 5;
/// How long a file may take.
const DEADLINE: Duration = Duration::from_secs(120);
/// Longest text of an error that is shown.
const MESSAGE: usize = 200;

const READ: u16 = 1;
const DATA: u16 = 3;
const ACKNOWLEDGEMENT: u16 = 4;
const ERROR: u16 = 5;
const OPTIONS: u16 = 6;

/// A file did not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TftpError {
    #[error("{0:?} must be tftp://HOST[:PORT]/PATH")]
    Url(String),
    #[error("the server of {url} has no address")]
    Address {
        url: String,
        #[source]
        source: std::io::Error,
    },
    #[error("asking {url}")]
    Socket {
        url: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{url}: no answer to {ATTEMPTS} packets")]
    Silent { url: String },
    #[error("{url}: the file has not come within {} s", DEADLINE.as_secs())]
    Slow { url: String },
    #[error("{url}: {reason}")]
    Refused { url: String, reason: String },
}

/// What a packet of the server asks for.
#[derive(Debug, PartialEq, Eq)]
enum Reaction {
    /// Send this, and again until there is an answer.
    Send(Vec<u8>),
    /// Send this once: the file is complete.
    Done(Vec<u8>),
    /// Nothing; a packet that came twice, or makes no sense.
    Ignore,
    /// The download has failed.
    Failed(String),
}

/// A download as the client sees it.
#[derive(Debug)]
struct Download {
    content: Vec<u8>,
    limit: usize,
    block_size: usize,
    /// The block that comes next, from 1.
    expected: u16,
}

impl Download {
    /// Takes files of at most `limit` bytes.
    const fn new(limit: usize) -> Self {
        Self { content: Vec::new(), limit, block_size: DEFAULT_BLOCK, expected: 1 }
    }

    /// The first packet.
    fn request(path: &str) -> Vec<u8> {
        let mut packet = READ.to_be_bytes().to_vec();
        for text in [path, "octet", "blksize", &BLOCK.to_string()] {
            packet.extend_from_slice(text.as_bytes());
            packet.push(0);
        }
        packet
    }

    fn receive(&mut self, packet: &[u8]) -> Reaction {
        let (Some(code), Some(second)) = (number(packet, 0), number(packet, 2)) else { return Reaction::Ignore };
        match code {
            OPTIONS if self.expected == 1 && self.content.is_empty() => self.options(&packet[2..]),
            DATA if second == self.expected => self.block(&packet[4..]),
            // The acknowledgement was lost.
            DATA if second == self.expected.wrapping_sub(1) && second != 0 => Reaction::Send(acknowledge(second)),
            ERROR => Reaction::Failed(format!("the server answered error {second}: {}", shown(&packet[4..]))),
            _ => Reaction::Ignore,
        }
    }

    fn options(&mut self, options: &[u8]) -> Reaction {
        let mut texts = options.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
            if name.eq_ignore_ascii_case("blksize") {
                match value.parse() {
                    Ok(size @ 8..=BLOCK) => self.block_size = size,
                    _ => {
                        return Reaction::Failed(format!(
                            "the server chose blocks of {:?} bytes",
                            shown(value.as_bytes())
                        ));
                    }
                }
            }
        }
        Reaction::Send(acknowledge(0))
    }

    fn block(&mut self, data: &[u8]) -> Reaction {
        if data.len() > self.block_size {
            return Reaction::Failed(format!("the server sent a block of {} bytes", data.len()));
        }
        if self.content.len() + data.len() > self.limit {
            return Reaction::Failed(format!("the file is larger than {} bytes", self.limit));
        }
        self.content.extend_from_slice(data);
        let acknowledgement = acknowledge(self.expected);
        if data.len() < self.block_size {
            return Reaction::Done(acknowledgement);
        }
        let Some(next) = self.expected.checked_add(1) else {
            return Reaction::Failed("the file has more blocks than there are numbers".to_owned());
        };
        self.expected = next;
        Reaction::Send(acknowledgement)
    }
}

fn acknowledge(block: u16) -> Vec<u8> {
    [ACKNOWLEDGEMENT.to_be_bytes(), block.to_be_bytes()].concat()
}

fn number(packet: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?))
}

/// Text of a server, for people.
fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.trim_end_matches('\0').chars().take(MESSAGE).flat_map(char::escape_debug).collect()
}

/// Host, port and path of a URL.
fn parts(url: &str) -> Option<(&str, u16, &str)> {
    let (authority, path) = url.strip_prefix("tftp://")?.split_once('/')?;
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, rest.strip_prefix(':'))
        }
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(PORT), |port| port.parse().ok())?;
    let is_good = !host.is_empty() && !path.is_empty() && !path.contains('\0') && path.len() <= 400;
    is_good.then_some((host, port, path))
}

/// The file of a URL, of at most `limit` bytes.
///
/// # Errors
/// The server does not answer, refuses, or sends more.
pub(crate) async fn fetch(url: &str, limit: usize) -> Result<Vec<u8>, TftpError> {
    let (host, port, path) = parts(url).ok_or_else(|| TftpError::Url(url.to_owned()))?;
    let download = async {
        let address = |source| TftpError::Address { url: url.to_owned(), source };
        let mut addresses = tokio::net::lookup_host((host, port)).await.map_err(address)?;
        let server = addresses.next().ok_or_else(|| address(std::io::ErrorKind::NotFound.into()))?;
        transfer(url, server, path, limit).await
    };
    let slow = |_| TftpError::Slow { url: url.to_owned() };
    tokio::time::timeout(DEADLINE, download).await.map_err(slow)?
}

async fn transfer(url: &str, server: SocketAddr, path: &str, limit: usize) -> Result<Vec<u8>, TftpError> {
    let failed = |source| TftpError::Socket { url: url.to_owned(), source };
    let any = if server.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { IpAddr::from(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0)).await.map_err(failed)?;
    let mut download = Download::new(limit);
    // Answers come from another port, which the server chooses for this download.
    let mut peer = None;
    let (mut packet, mut buffer) = (Download::request(path), vec![0; BLOCK + 5]);
    loop {
        let mut answer = None;
        for attempt in 0..ATTEMPTS {
            socket.send_to(&packet, peer.unwrap_or(server)).await.map_err(failed)?;
            let until = Instant::now() + RETRY * 2_u32.pow(attempt);
            answer = heard(&socket, &mut buffer, server.ip(), &mut peer, &mut download, until).await.map_err(failed)?;
            if answer.is_some() {
                break;
            }
        }
        match answer {
            Some(Reaction::Send(next)) => packet = next,
            Some(Reaction::Done(last)) => {
                // A server that misses it sends its last block again, to nobody.
                socket.send_to(&last, peer.unwrap_or(server)).await.map_err(failed)?;
                return Ok(download.content);
            }
            Some(Reaction::Failed(reason)) => return Err(TftpError::Refused { url: url.to_owned(), reason }),
            Some(Reaction::Ignore) | None => return Err(TftpError::Silent { url: url.to_owned() }),
        }
    }
}

/// The first packet of the server until then that asks for something.
async fn heard(
    socket: &UdpSocket,
    buffer: &mut [u8],
    server: IpAddr,
    peer: &mut Option<SocketAddr>,
    download: &mut Download,
    until: Instant,
) -> std::io::Result<Option<Reaction>> {
    loop {
        let Ok(received) = tokio::time::timeout_at(until, socket.recv_from(buffer)).await else { return Ok(None) };
        let (length, from) = received?;
        let is_server = peer.map_or(from.ip() == server, |peer| peer == from);
        if !is_server {
            continue;
        }
        match download.receive(&buffer[..length]) {
            Reaction::Ignore => {}
            reaction => {
                *peer = Some(from);
                return Ok(Some(reaction));
            }
        }
    }
}

#[cfg(test)]
mod tests;
