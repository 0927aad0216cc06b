//! Sockets of a link: a packet socket for everything that arrives and for broadcasts of a link without an address, and a UDP
//! socket for requests to the server of a lease.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use async_trait::async_trait;
use netlink::{Namespace, NetlinkError};
use parking_lot::Mutex;
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use tokio::io::unix::AsyncFd;

use crate::client::Destination;
use crate::frame::{CLIENT_PORT, SERVER_PORT};
use crate::{filter, frame};

/// The largest packet that is read; longer ones are cut and then refused.
const MAX_PACKET: usize = 2048;

/// The link that a client runs on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LinkAddress {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its Ethernet address.
    pub hardware: [u8; 6],
}

/// A socket cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{operation} for DHCP on {link}")]
pub struct SocketError {
    operation: &'static str,
    link: String,
    #[source]
    cause: io::Error,
}

impl SocketError {
    /// The kernel refused `operation` on `link`.
    pub fn new(operation: &'static str, link: &str, cause: impl Into<io::Error>) -> Self {
        Self { operation, link: link.to_owned(), cause: cause.into() }
    }
}

/// Opens sockets on links.
#[async_trait]
pub trait Sockets: std::fmt::Debug + Send + Sync + 'static {
    /// A socket that hears all messages to the clients of a link from now on.
    async fn open(&self, link: &LinkAddress) -> Result<Box<dyn Socket>, SocketError>;
}

/// The socket of a link.
#[async_trait]
pub trait Socket: Send + Sync {
    /// Sends a message.
    async fn send(&self, message: &[u8], to: Destination) -> Result<(), SocketError>;
    /// The next message. Cancel-safe.
    async fn receive(&self) -> Result<Vec<u8>, SocketError>;
}

/// Sockets of the kernel.
///
/// Assumptions: opened on a tokio runtime.
#[derive(Debug, Default)]
pub struct KernelSockets {
    namespace: Option<Arc<Namespace>>,
}

impl KernelSockets {
    /// On links of another network namespace.
    #[must_use]
    pub const fn of(namespace: Arc<Namespace>) -> Self {
        Self { namespace: Some(namespace) }
    }
}

#[async_trait]
impl Sockets for KernelSockets {
    async fn open(&self, link: &LinkAddress) -> Result<Box<dyn Socket>, SocketError> {
        let failed = |cause: io::Error| SocketError::new("opening a packet socket", &link.name, cause);
        let socket = within(self.namespace.as_deref(), || packet_socket(link)).map_err(failed)?;
        // SAFETY: the registration owns the socket, so the descriptor stays open for as long as it is registered.
        #[expect(unsafe_code, reason = "registration trusts its argument about the descriptor")]
        let packets = unsafe { AsyncFd::register(socket) }.map_err(|error| failed(error.into()))?;
        Ok(Box::new(KernelSocket {
            link: link.clone(),
            namespace: self.namespace.clone(),
            packets,
            unicast: Mutex::default(),
        }))
    }
}

fn within<T: Send>(namespace: Option<&Namespace>, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    match namespace {
        Some(namespace) => namespace.run(work).map_err(|error: NetlinkError| io::Error::other(error))?,
        None => work(),
    }
}

struct KernelSocket {
    link: LinkAddress,
    namespace: Option<Arc<Namespace>>,
    packets: AsyncFd<OwnedFd>,
    /// Bound to the address of the lease while it is renewed. Answers are read from `packets`; that this socket exists keeps
    /// the kernel from refusing them.
    unicast: Mutex<Option<(Ipv4Addr, OwnedFd)>>,
}

#[async_trait]
impl Socket for KernelSocket {
    async fn send(&self, message: &[u8], to: Destination) -> Result<(), SocketError> {
        let failed = |cause: io::Error| SocketError::new("sending a message", &self.link.name, cause);
        match to {
            Destination::Everybody => {
                let everybody = PacketAddress { index: self.link.index, hardware: [0xff; 6] };
                rustix::net::sendto(
                    self.packets.get_ref(),
                    &frame::broadcast(message),
                    SendFlags::DONTWAIT,
                    &everybody,
                )
                .map_err(|cause| failed(cause.into()))?;
            }
            Destination::Server { from, server } => {
                let mut unicast = self.unicast.lock();
                if unicast.as_ref().is_none_or(|(address, _)| *address != from) {
                    let socket =
                        within(self.namespace.as_deref(), || unicast_socket(&self.link, from)).map_err(failed)?;
                    *unicast = Some((from, socket));
                }
                if let Some((_, socket)) = unicast.as_ref() {
                    let server = SocketAddrV4::new(server, SERVER_PORT);
                    rustix::net::sendto(socket, message, SendFlags::DONTWAIT, &server)
                        .map_err(|cause| failed(cause.into()))?;
                }
            }
        }
        Ok(())
    }

    async fn receive(&self) -> Result<Vec<u8>, SocketError> {
        let failed = |cause: io::Error| SocketError::new("receiving messages", &self.link.name, cause);
        loop {
            let mut ready = self.packets.readable().await.map_err(failed)?;
            let mut buffer = [0; MAX_PACKET];
            let read = ready.try_io(|socket| Ok(rustix::net::recv(socket, &mut buffer[..], RecvFlags::DONTWAIT)?.0));
            match read {
                Ok(Ok(length)) => {
                    if let Some(message) = buffer.get(..length).and_then(frame::payload) {
                        return Ok(message.to_vec());
                    }
                }
                Ok(Err(error)) => return Err(failed(error)),
                // Somebody else took it, or there was nothing: wait again.
                Err(_) => {}
            }
        }
    }
}

const IPV4: u16 = 0x0800;

fn packet_socket(link: &LinkAddress) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Without a protocol it hears nothing before it is bound to its link.
    let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, None)?;
    filter::attach(socket.as_fd())?;
    rustix::net::bind(&socket, &PacketAddress { index: link.index, hardware: link.hardware })?;
    Ok(socket)
}

fn unicast_socket(link: &LinkAddress, address: Ipv4Addr) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, Some(rustix::net::ipproto::UDP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind_to_device(socket.as_fd(), &link.name)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(address, CLIENT_PORT))?;
    Ok(socket)
}

fn bind_to_device(socket: std::os::fd::BorrowedFd<'_>, name: &str) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let length = u32::try_from(name.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads `length` bytes of the name, which outlives the call.
    #[expect(unsafe_code, reason = "rustix has no SO_BINDTODEVICE")]
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name.as_ptr().cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The address of a packet socket: `sockaddr_ll`.
struct PacketAddress {
    index: u32,
    hardware: [u8; 6],
}

// SAFETY: it hands out a pointer to a whole `sockaddr_ll` and its size.
#[expect(unsafe_code, reason = "rustix has no addresses of packet sockets")]
unsafe impl SocketAddrArg for PacketAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        let mut octets = [0; 8];
        octets[..6].copy_from_slice(&self.hardware);
        let address = libc::sockaddr_ll {
            sll_family: u16::try_from(libc::AF_PACKET).unwrap_or_default(),
            sll_protocol: IPV4.to_be(),
            sll_ifindex: i32::try_from(self.index).unwrap_or_default(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: octets,
        };
        let length = u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or_default();
        f(std::ptr::from_ref(&address).cast(), length)
    }
}
