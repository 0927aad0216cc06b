//! Events of the kernel's devices: the messages, and the socket that they come from.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with, sockopt};
use tokio::io::unix::AsyncFd;

/// The kernel's own group; udevd's is 2.
const KERNEL: u32 = 1;
/// The kernel's limit of a message is 2 KiB of variables and a path.
const LONGEST: usize = 8192;
/// A burst of events at the start of a machine: some hundred devices.
const BUFFER: usize = 4 << 20;

/// An event of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uevent {
    /// `add`, `remove`, `change`, …
    pub action: String,
    /// Below `/sys`.
    pub path: String,
    /// `block`, `net`, …
    pub subsystem: String,
    /// The device's node below `/dev`; empty for devices without one.
    pub node: String,
}

impl Uevent {
    /// Reads a message of the kernel; `None` for one of udevd, or something else.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let mut fields = message.split(|byte| *byte == 0);
        let head = std::str::from_utf8(fields.next()?).ok()?;
        let (action, path) = head.split_once('@')?;
        if action.is_empty() || !path.starts_with('/') {
            return None;
        }
        let mut event =
            Self { action: action.to_owned(), path: path.to_owned(), subsystem: String::new(), node: String::new() };
        for field in fields {
            let Some((key, value)) = std::str::from_utf8(field).ok().and_then(|field| field.split_once('=')) else {
                continue;
            };
            match key {
                "SUBSYSTEM" => value.clone_into(&mut event.subsystem),
                "DEVNAME" => value.clone_into(&mut event.node),
                _ => {}
            }
        }
        Some(event)
    }
}

/// What a listener received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    Event(Uevent),
    /// Events were lost: everything may have changed.
    Lost,
}

/// Receives events from its creation on.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<OwnedFd>,
}

impl Listener {
    /// Starts to listen.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
        // Above the limit for all it needs a privilege; less is not fatal, as lost events are noticed.
        if sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, BUFFER)?;
        }
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL))?;
        // SAFETY: the registration owns the socket, so the descriptor stays open for as long as it is registered.
        #[expect(unsafe_code, reason = "the safe function is deprecated")]
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(Self { socket })
    }

    /// The next event; messages that are none are skipped. Cancel-safe.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn next(&mut self) -> io::Result<Received> {
        let mut buffer = [0; LONGEST];
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| Ok(recv(socket, &mut buffer[..], RecvFlags::empty())?)) {
                Ok(Ok((length, _))) => {
                    if let Some(event) = Uevent::parse(&buffer[..length]) {
                        return Ok(Received::Event(event));
                    }
                }
                Ok(Err(error)) if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {
                    return Ok(Received::Lost);
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_is_an_action_a_path_and_variables() {
        let message = b"add@/devices/pci0000:00/block/vda\0ACTION=add\0SUBSYSTEM=block\0DEVNAME=vda\0broken\0";
        let event = Uevent::parse(message).unwrap();
        assert_eq!((event.action.as_str(), event.path.as_str()), ("add", "/devices/pci0000:00/block/vda"));
        assert_eq!((event.subsystem.as_str(), event.node.as_str()), ("block", "vda"));
        assert_eq!(Uevent::parse(b"libudev\0\xfe\xed\xca\xfe"), None);
        assert_eq!(Uevent::parse(b"@/x"), None);
        assert_eq!(Uevent::parse(b"add@x"), None);
    }

    proptest! {
        #[test]
        fn no_message_is_fatal(message in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(Uevent::parse(&message));
        }
    }
}
