//! Reading and writing of the values of options.
//!
//! Values come from the network: a value of the wrong length, an impossible address or an invalid name counts as absent.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::code::Code;
use crate::message::Message;

/// The most elements of a list that are taken up.
const MAX_LIST: usize = 64;
/// The most steps in the compressed form of a list of domains.
const MAX_LABELS: usize = 256;

impl Message {
    /// An option of one address.
    #[must_use]
    pub fn address(&self, code: Code) -> Option<Ipv4Addr> {
        let value: [u8; 4] = self.option(code)?.try_into().ok()?;
        Some(value.into())
    }

    /// An option of several addresses, without those that no host can have.
    #[must_use]
    pub fn addresses(&self, code: Code) -> Vec<Ipv4Addr> {
        let value = self.option(code).unwrap_or_default();
        if !value.len().is_multiple_of(4) {
            return Vec::new();
        }
        let (addresses, _) = value.as_chunks::<4>();
        let mut found = Vec::new();
        for address in addresses.iter().take(MAX_LIST).map(|bytes| Ipv4Addr::from(*bytes)) {
            if is_host(address) && !found.contains(&address) {
                found.push(address);
            }
        }
        found
    }

    /// An option of a number of 32 bits.
    #[must_use]
    pub fn number(&self, code: Code) -> Option<u32> {
        Some(u32::from_be_bytes(self.option(code)?.try_into().ok()?))
    }

    /// The length of the prefix in the subnet mask.
    #[must_use]
    pub fn prefix_len(&self) -> Option<u8> {
        ipnet::ipv4_mask_to_prefix(self.address(Code::SubnetMask)?).ok()
    }

    /// The MTU; RFC 2132 has 68 as the smallest one.
    #[must_use]
    pub fn mtu(&self) -> Option<u16> {
        let mtu = u16::from_be_bytes(self.option(Code::Mtu)?.try_into().ok()?);
        (mtu >= 68).then_some(mtu)
    }

    /// An option of a host or domain name, in lower case, if it is a valid one.
    #[must_use]
    pub fn name(&self, code: Code) -> Option<String> {
        let text = std::str::from_utf8(self.option(code)?).ok()?;
        // Some servers end it by a zero, some by a dot.
        let name = text.trim_end_matches('\0').trim_end_matches('.').to_ascii_lowercase();
        is_name(&name).then_some(name)
    }

    /// The classless routes (RFC 3442): destination and next hop, which is absent for destinations on the link. Nothing if
    /// any of them is broken.
    #[must_use]
    pub fn classless_routes(&self) -> Vec<(Ipv4Net, Option<Ipv4Addr>)> {
        let mut value = self.option(Code::ClasslessRoutes).unwrap_or_default();
        let mut routes = Vec::new();
        while !value.is_empty() && routes.len() < MAX_LIST {
            let Some((route, rest)) = classless_route(value) else { return Vec::new() };
            routes.push(route);
            value = rest;
        }
        routes
    }

    /// The domains to search (RFC 3397). Nothing if any of them is broken.
    #[must_use]
    pub fn domain_search(&self) -> Vec<String> {
        let value = self.option(Code::DomainSearch).unwrap_or_default();
        domains(value).unwrap_or_default()
    }

    /// The kind of firmware and processor that asks (RFC 4578), the first if there are several.
    #[must_use]
    pub fn client_architecture(&self) -> Option<u16> {
        self.option(Code::ClientArchitecture)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
    }

    /// With an option of addresses.
    #[must_use]
    pub fn with_addresses(self, code: Code, addresses: &[Ipv4Addr]) -> Self {
        self.with(code, addresses.iter().flat_map(Ipv4Addr::octets).collect::<Vec<u8>>())
    }

    /// With an option of a number of 32 bits.
    #[must_use]
    pub fn with_number(self, code: Code, number: u32) -> Self {
        self.with(code, number.to_be_bytes())
    }

    /// With classless routes (RFC 3442): destination and next hop, which is unspecified for destinations on the link.
    #[must_use]
    pub fn with_classless_routes(self, routes: &[(Ipv4Net, Ipv4Addr)]) -> Self {
        let mut value = Vec::new();
        for (destination, gateway) in routes {
            let length = destination.prefix_len();
            value.push(length);
            value.extend(destination.network().octets().iter().take(usize::from(length).div_ceil(8)));
            value.extend(gateway.octets());
        }
        self.with(Code::ClasslessRoutes, value)
    }
}

type ClasslessRoute = (Ipv4Net, Option<Ipv4Addr>);

/// The first route, and what follows it.
fn classless_route(value: &[u8]) -> Option<(ClasslessRoute, &[u8])> {
    let (length, rest) = value.split_first()?;
    let (significant, rest) = rest.split_at_checked(usize::from(*length).div_ceil(8))?;
    let (gateway, rest) = rest.split_first_chunk::<4>()?;
    let mut octets = [0; 4];
    octets.get_mut(..significant.len())?.copy_from_slice(significant);
    let destination = Ipv4Net::new(octets.into(), *length).ok()?.trunc();
    let gateway = Ipv4Addr::from(*gateway);
    let gateway = match gateway {
        Ipv4Addr::UNSPECIFIED => None,
        gateway if is_host(gateway) => Some(gateway),
        _ => return None,
    };
    Some(((destination, gateway), rest))
}

fn domains(value: &[u8]) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < value.len() && found.len() < MAX_LIST {
        let (name, next) = domain(value, at)?;
        if !is_name(&name) {
            return None;
        }
        found.push(name);
        at = next;
    }
    Some(found)
}

/// One name in the form of DNS, and where the next one begins.
fn domain(value: &[u8], start: usize) -> Option<(String, usize)> {
    let mut labels: Vec<&str> = Vec::new();
    let (mut at, mut next) = (start, None);
    for _ in 0..MAX_LABELS {
        let length = *value.get(at)?;
        match length >> 6 {
            0 if length == 0 => return Some((labels.join(".").to_ascii_lowercase(), next.unwrap_or(at + 1))),
            0 => {
                let label = value.get(at + 1..at + 1 + usize::from(length))?;
                labels.push(std::str::from_utf8(label).ok()?);
                at += 1 + usize::from(length);
            }
            3 => {
                next = next.or(Some(at + 2));
                at = usize::from(u16::from_be_bytes([length & 0x3f, *value.get(at + 1)?]));
            }
            _ => return None,
        }
    }
    None
}

/// Whether a host could have this address.
pub(crate) fn is_host(address: Ipv4Addr) -> bool {
    !(address.octets()[0] == 0 || address.is_loopback() || address.is_multicast() || address.is_broadcast())
}

/// Whether it is a host name, with or without a domain.
fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(code: Code, value: impl Into<Vec<u8>>) -> Message {
        Message::request(1, [0; 6]).with(code, value)
    }

    #[test]
    fn addresses_that_no_host_can_have_are_left_out() {
        let value = [[10, 0, 2, 3], [0, 0, 0, 0], [255; 4], [224, 0, 0, 1], [127, 0, 0, 1], [10, 0, 2, 3]].concat();
        assert_eq!(with(Code::DnsServers, value).addresses(Code::DnsServers), [Ipv4Addr::new(10, 0, 2, 3)]);
        assert!(with(Code::DnsServers, [10, 0, 2]).addresses(Code::DnsServers).is_empty());
    }

    #[test]
    fn a_mask_is_a_prefix_or_nothing() {
        assert_eq!(with(Code::SubnetMask, [255, 255, 254, 0]).prefix_len(), Some(23));
        assert_eq!(with(Code::SubnetMask, [255, 0, 255, 0]).prefix_len(), None);
        assert_eq!(with(Code::SubnetMask, [255, 255]).prefix_len(), None);
    }

    #[test]
    fn an_mtu_has_a_lower_bound() {
        assert_eq!(with(Code::Mtu, [5, 0xdc]).mtu(), Some(1500));
        assert_eq!(with(Code::Mtu, [0, 67]).mtu(), None);
    }

    #[test]
    fn names_are_checked() {
        for (value, expected) in [
            (&b"Node-1"[..], Some("node-1")),
            (b"node.example.org\0", Some("node.example.org")),
            (b"example.org.", Some("example.org")),
            (b"a b", None),
            (b"-a", None),
            (b"", None),
            (b"a..b", None),
            (b"\xff", None),
        ] {
            assert_eq!(with(Code::HostName, value).name(Code::HostName).as_deref(), expected, "{value:?}");
        }
        assert_eq!(with(Code::HostName, vec![b'a'; 64]).name(Code::HostName), None);
    }

    #[test]
    fn classless_routes_have_as_many_octets_as_they_need() {
        let value = [&[0, 10, 0, 0, 1][..], &[24, 192, 168, 5, 10, 0, 0, 2], &[32, 10, 0, 0, 1, 0, 0, 0, 0]].concat();
        let routes = with(Code::ClasslessRoutes, value.clone()).classless_routes();
        let texts: Vec<String> = routes.iter().map(|(to, via)| format!("{to} {via:?}")).collect();
        assert_eq!(texts, ["0.0.0.0/0 Some(10.0.0.1)", "192.168.5.0/24 Some(10.0.0.2)", "10.0.0.1/32 None"]);
        assert!(with(Code::ClasslessRoutes, &value[..value.len() - 1]).classless_routes().is_empty());
        assert!(with(Code::ClasslessRoutes, [33, 1, 2, 3, 4, 5, 6, 7, 8, 9]).classless_routes().is_empty());
    }

    #[test]
    fn written_values_are_read_back() {
        let routes = ["0.0.0.0/0", "10.128.0.0/9", "192.168.5.0/24", "10.0.0.1/32"].map(|net| net.parse().unwrap());
        let (gateway, other) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let message = Message::request(1, [0; 6])
            .with_classless_routes(&routes.map(|route| (route, gateway)))
            .with_addresses(Code::DnsServers, &[gateway, other])
            .with_number(Code::LeaseTime, 300)
            .with(Code::ClientArchitecture, [0, 7, 0, 9]);
        let read = Message::decode(&message.encode()).unwrap();
        assert_eq!(read.classless_routes(), routes.map(|route| (route, Some(gateway))));
        assert_eq!(read.addresses(Code::DnsServers), [gateway, other]);
        assert_eq!((read.number(Code::LeaseTime), read.client_architecture()), (Some(300), Some(7)));
        assert_eq!(with(Code::ClientArchitecture, [7]).client_architecture(), None);
    }

    #[test]
    fn a_domain_may_point_into_an_earlier_one_and_no_loop_is_followed() {
        let value = [&b"\x03eng\x05apple\x03com\0"[..], b"\x09marketing\xc0\x04"].concat();
        assert_eq!(with(Code::DomainSearch, value).domain_search(), ["eng.apple.com", "marketing.apple.com"]);
        assert!(with(Code::DomainSearch, [0xc0, 0]).domain_search().is_empty());
        assert!(with(Code::DomainSearch, [3, b'a']).domain_search().is_empty());
    }

    proptest! {
        #[test]
        fn no_value_panics(value in prop::collection::vec(any::<u8>(), 0..300)) {
            for code in [Code::DomainSearch, Code::ClasslessRoutes, Code::HostName, Code::SubnetMask, Code::Mtu] {
                let message = with(code, value.clone());
                let _ = (message.domain_search(), message.classless_routes(), message.name(code), message.prefix_len());
                let _ = (message.mtu(), message.number(code), message.addresses(code));
                let _ = with(Code::ClientArchitecture, value.clone()).client_architecture();
            }
        }
    }
}
