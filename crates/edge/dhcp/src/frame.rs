//! The headers of IPv4 and UDP around a message, for a link that has no address yet.

use std::net::Ipv4Addr;

const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const UDP: u8 = 17;
/// The client's port.
pub(crate) const CLIENT_PORT: u16 = 68;
/// The server's port.
pub(crate) const SERVER_PORT: u16 = 67;

/// A packet from nobody to everybody.
pub(crate) fn broadcast(payload: &[u8]) -> Vec<u8> {
    let udp_length = u16::try_from(UDP_HEADER + payload.len()).unwrap_or(u16::MAX);
    let length = udp_length.saturating_add(20);
    let mut header = [0; IP_HEADER];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header[8] = 64;
    header[9] = UDP;
    header[16..20].copy_from_slice(&Ipv4Addr::BROADCAST.octets());
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());

    let mut udp = [0; UDP_HEADER];
    udp[0..2].copy_from_slice(&CLIENT_PORT.to_be_bytes());
    udp[2..4].copy_from_slice(&SERVER_PORT.to_be_bytes());
    udp[4..6].copy_from_slice(&udp_length.to_be_bytes());
    let mut pseudo = [0; 12];
    pseudo[..8].copy_from_slice(&header[12..20]);
    pseudo[9] = UDP;
    pseudo[10..12].copy_from_slice(&udp_length.to_be_bytes());
    // Zero would mean that there is no checksum.
    let sum = match checksum(&[&pseudo, &udp, payload]) {
        0 => u16::MAX,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    [&header[..], &udp, payload].concat()
}

/// The message in a packet to the client's port.
///
/// The checksum of UDP is not looked at: between virtual machines it is often not filled in. A message is recognised by its
/// transaction.
pub(crate) fn payload(packet: &[u8]) -> Option<&[u8]> {
    let header = packet.first_chunk::<IP_HEADER>()?;
    let header_length = usize::from(header[0] & 0xf) * 4;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let is_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
    if header[0] >> 4 != 4 || header_length < IP_HEADER || is_fragment || header[9] != UDP {
        return None;
    }
    // Short packets are padded on Ethernet.
    let packet = packet.get(..length)?;
    if checksum(&[packet.get(..header_length)?]) != 0 {
        return None;
    }
    let (udp, rest) = packet.get(header_length..)?.split_first_chunk::<UDP_HEADER>()?;
    let port = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
    if (port(0), port(2)) != (SERVER_PORT, CLIENT_PORT) {
        return None;
    }
    rest.get(..usize::from(port(4)).checked_sub(UDP_HEADER)?)
}

/// The checksum of the internet; all parts but the last have an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 =
        words.map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or_default()]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same packet on its way back.
    fn answer(payload: &[u8]) -> Vec<u8> {
        let mut packet = broadcast(payload);
        packet[20..22].copy_from_slice(&SERVER_PORT.to_be_bytes());
        packet[22..24].copy_from_slice(&CLIENT_PORT.to_be_bytes());
        packet
    }

    #[test]
    fn a_message_is_found_in_a_padded_packet() {
        let mut packet = answer(b"hello");
        packet.extend([0; 13]);
        assert_eq!(payload(&packet), Some(&b"hello"[..]));
        assert_eq!(payload(&broadcast(b"hello")), None, "that is for a server");
    }

    #[test]
    fn the_checksum_of_udp_covers_addresses_and_payload() {
        let packet = broadcast(b"hello");
        let mut pseudo = packet[12..20].to_vec();
        pseudo.extend([0, UDP, 0, 13]);
        assert_eq!(checksum(&[&pseudo, &packet[20..]]), 0);
    }

    #[test]
    fn fragments_and_broken_headers_are_left_alone() {
        let broken = |at: usize, byte: u8| {
            let mut packet = answer(b"hello");
            packet[at] = byte;
            payload(&packet).is_none()
        };
        for (at, byte) in [(0, 0x65), (0, 0x44), (2, 0xff), (6, 0x20), (8, 1), (9, 6), (21, 68), (25, 4)] {
            assert!(broken(at, byte), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn no_packet_panics(packet in prop::collection::vec(any::<u8>(), 0..100), cut in 0usize..60) {
            let _ = payload(&packet);
            let whole = answer(&packet);
            prop_assert_eq!(payload(&whole), Some(&packet[..]));
            let _ = payload(&whole[..cut.min(whole.len())]);
        }
    }
}
