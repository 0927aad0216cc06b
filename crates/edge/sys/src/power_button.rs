//! The power button, by the kernel's ACPI events: generic netlink, family `acpi_event`.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use tokio::io::unix::AsyncFd;

/// Generic netlink's own family, which knows the others.
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const ATTRIBUTE_FAMILY_NAME: u16 = 2;
const ATTRIBUTE_GROUPS: u16 = 7;
const ATTRIBUTE_GROUP_NAME: u16 = 1;
const ATTRIBUTE_GROUP_ID: u16 = 2;
const FAMILY: &[u8] = b"acpi_event\0";
const GROUP: &[u8] = b"acpi_mc_group\0";
/// Headers of netlink and of generic netlink.
const HEADERS: usize = 16 + 4;
/// The class of events that a power button makes; the bus id follows.
const BUTTON: &[u8] = b"button/power";
const BUFFER: usize = 8192;

/// Events of power buttons.
#[derive(Debug)]
pub struct PowerButton {
    socket: AsyncFd<OwnedFd>,
}

impl PowerButton {
    /// Subscribes to them.
    ///
    /// # Errors
    /// The kernel's; `NotFound` where it has no ACPI.
    pub fn open() -> io::Result<Self> {
        // SAFETY: takes numbers only.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_GENERIC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        send(&socket, &get_family())?;
        let reply = receive(&socket)?;
        let group =
            group_id(&reply).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the kernel has no ACPI events"))?;
        let length = libc::socklen_t::try_from(size_of::<u32>()).map_err(io::Error::other)?;
        // SAFETY: the kernel reads one number, which outlives the call.
        let rc = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_NETLINK,
                libc::NETLINK_ADD_MEMBERSHIP,
                (&raw const group).cast(),
                length,
            )
        };
        if rc != 0 {
            return Err(io::Error::last_os_error());
        }
        rustix::io::ioctl_fionbio(&socket, true)?;
        // SAFETY: the registration owns the socket, so the descriptor stays open for as long as it is registered.
        Ok(Self { socket: unsafe { AsyncFd::register(socket) }? })
    }

    /// Waits until it is pressed. Cancel-safe.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn pressed(&mut self) -> io::Result<()> {
        loop {
            match receive(self.socket.get_ref()) {
                Ok(message) if is_button(&message) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.socket.readable().await?.clear_ready(),
                // Events were lost: the next one is still heard.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn get_family() -> Vec<u8> {
    let mut payload = vec![GET_FAMILY, 1, 0, 0];
    let length = u16::try_from(4 + FAMILY.len()).unwrap_or_default();
    payload.extend(length.to_ne_bytes());
    payload.extend(ATTRIBUTE_FAMILY_NAME.to_ne_bytes());
    payload.extend(FAMILY);
    payload.resize(payload.len().next_multiple_of(4), 0);
    let mut message = Vec::new();
    message.extend(u32::try_from(16 + payload.len()).unwrap_or_default().to_ne_bytes());
    message.extend(CONTROLLER.to_ne_bytes());
    message.extend(u16::try_from(libc::NLM_F_REQUEST).unwrap_or_default().to_ne_bytes());
    message.extend(1u32.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(payload);
    message
}

fn send(socket: &OwnedFd, message: &[u8]) -> io::Result<()> {
    // SAFETY: the buffer outlives the call. Without an address the kernel is the receiver.
    let sent = unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn receive(socket: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0u8; BUFFER];
    // SAFETY: the kernel writes at most the length of the buffer, which outlives the call.
    let got = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    buffer.truncate(got);
    Ok(buffer)
}

/// Attributes of a message or of an attribute: kind and value, one after another.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*rest.first()?, *rest.get(1)?]));
        let kind = u16::from_ne_bytes([*rest.get(2)?, *rest.get(3)?]) & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The number of the family's group, in the controller's answer.
fn group_id(reply: &[u8]) -> Option<u32> {
    let (_, groups) = attributes(reply.get(HEADERS..)?).find(|(kind, _)| *kind == ATTRIBUTE_GROUPS)?;
    let find =
        |group: &[u8], wanted| attributes(group).find(|(kind, _)| *kind == wanted).map(|(_, value)| value.to_vec());
    let is_ours = |group: &[u8]| find(group, ATTRIBUTE_GROUP_NAME).is_some_and(|name| name == GROUP);
    let (_, group) = attributes(groups).find(|(_, group)| is_ours(group))?;
    Some(u32::from_ne_bytes(find(group, ATTRIBUTE_GROUP_ID)?.try_into().ok()?))
}

/// Whether an event tells of a power button. Its attribute begins with the class of the device.
fn is_button(message: &[u8]) -> bool {
    attributes(message.get(HEADERS..).unwrap_or_default()).any(|(_, event)| event.starts_with(BUTTON))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn the_group_of_the_family_is_found_by_its_name() {
        let group = |name: &[u8], id: u32| {
            let content =
                [attribute(ATTRIBUTE_GROUP_NAME, name), attribute(ATTRIBUTE_GROUP_ID, &id.to_ne_bytes())].concat();
            attribute(1, &content)
        };
        let groups = [group(b"other\0", 3), group(GROUP, 5)].concat();
        let reply = [vec![0; HEADERS], attribute(1, b"\x18\0"), attribute(ATTRIBUTE_GROUPS, &groups)].concat();
        assert_eq!(group_id(&reply), Some(5));
        for end in 0..reply.len() {
            group_id(&reply[..end]);
        }
        assert_eq!(group_id(b""), None);
    }

    #[test]
    fn only_a_power_button_is_one() {
        let event = |class: &[u8]| [vec![0; HEADERS], attribute(1, class)].concat();
        assert!(is_button(&event(b"button/power\0\0\0\0\0\0\0\0PNP0C0C:00\0")));
        assert!(!is_button(&event(b"button/sleep\0\0\0\0\0\0\0\0PNP0C0E:00\0")));
        assert!(!is_button(b""));
    }
}
