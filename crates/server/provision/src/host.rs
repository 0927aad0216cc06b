//! Routes and listeners of the host. Reads only.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Networks that the host has a route to, without the default route, each with its link.
pub(crate) fn routes() -> Vec<(Ipv4Net, String)> {
    parse_routes(&std::fs::read_to_string("/proc/net/route").unwrap_or_default())
}

fn parse_routes(table: &str) -> Vec<(Ipv4Net, String)> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let address = |field: &str| Some(Ipv4Addr::from(u32::from_str_radix(field, 16).ok()?.swap_bytes()));
            let (link, network, mask) = (*fields.first()?, address(fields.get(1)?)?, address(fields.get(7)?)?);
            let network = Ipv4Net::with_netmask(network, mask).ok()?;
            (network.prefix_len() > 0).then(|| (network, link.to_owned()))
        })
        .collect()
}

/// Ports with listeners on all addresses of the host.
pub(crate) fn wildcard_listeners() -> Vec<u16> {
    let mut ports = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        ports.extend(parse_listeners(&std::fs::read_to_string(table).unwrap_or_default()));
    }
    ports
}

fn parse_listeners(table: &str) -> Vec<u16> {
    const LISTEN: &str = "0A";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (address, port) = fields.next()?.split_once(':')?;
            let state = fields.nth(1)?;
            (state == LISTEN && address.bytes().all(|b| b == b'0')).then(|| u16::from_str_radix(port, 16).ok())?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_with_their_links_and_without_the_default() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                     eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(parse_routes(table), [("192.0.2.0/24".parse().unwrap(), "eth0".to_owned())]);
    }

    #[test]
    fn only_listeners_on_all_addresses_count() {
        let table = "  sl  local_address rem_address   st\n\
                     0: 00000000:0BB8 00000000:0000 0A 0\n\
                     1: 0100007F:1388 00000000:0000 0A 0\n\
                     2: 00000000:1389 0100007F:9999 01 0\n";
        assert_eq!(parse_listeners(table), [3000]);
        let six = "  sl  local\n 0: 00000000000000000000000000000000:1388 0:0 0A 0\n";
        assert_eq!(parse_listeners(six), [5000]);
    }
}
