//! How many may sit at a table at the same time, all together and from one source.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// What a server holds for its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections, all together.
    pub total: usize,
    /// Connections from one source: an IPv4 address, or a /64 of IPv6, which is what one host can have.
    pub per_source: usize,
    /// Calls at a time on one connection.
    pub streams: u32,
    /// How long a connection may last where seats are few; calls that are open then have a little longer.
    pub age: Option<Duration>,
}

impl Limits {
    /// Of a server that knows its clients by certificate: operators, programs on Kubernetes, and other nodes, of which
    /// each has all its clients on one connection.
    pub const KNOWN: Self = Self { total: 2048, per_source: 512, streams: 4096, age: None };
    /// Of a node's server that anybody may connect to. Its callers come seldom and stay short.
    pub const ANYBODY: Self = Self { total: 256, per_source: 32, streams: 32, age: Some(Duration::from_secs(5 * 60)) };
    /// Of a server for many clusters, whose nodes may share one address.
    pub const CLUSTERS: Self = Self { total: 16_384, per_source: 4096, streams: 128, age: None };
}

/// The seats of a server; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Seats {
    total: usize,
    per_source: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// A seat that is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    source: IpAddr,
    taken: Arc<Mutex<Taken>>,
}

impl Seats {
    pub(crate) fn new(total: usize, per_source: usize) -> Self {
        Self { total, per_source, taken: Arc::default() }
    }

    /// A seat for a peer at `address`; `None` when it, or everybody together, has all of theirs.
    pub(crate) fn take(&self, address: IpAddr) -> Option<Seat> {
        let source = source(address);
        let mut taken = self.taken.lock();
        if taken.total >= self.total {
            return None;
        }
        let of_source = taken.by_source.entry(source).or_default();
        if *of_source >= self.per_source {
            return None;
        }
        *of_source += 1;
        taken.total += 1;
        Some(Seat { source, taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        taken.total = taken.total.saturating_sub(1);
        if let Some(of_source) = taken.by_source.get_mut(&self.source) {
            *of_source -= 1;
            if *of_source == 0 {
                taken.by_source.remove(&self.source);
            }
        }
    }
}

/// The source that an address counts for: an IPv4 address itself, the /64 of an IPv6 address, which is what one host can
/// have.
#[must_use]
pub fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() & (u128::MAX << 64))),
        four @ IpAddr::V4(_) => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_source_gets_its_share_and_leaves_room_for_others() {
        let seats = Seats::new(5, 2);
        let held: Vec<_> = (0..2).map(|_| seats.take(ip("10.0.0.1")).unwrap()).collect();
        assert!(seats.take(ip("10.0.0.1")).is_none());
        assert!(seats.take(ip("::ffff:10.0.0.1")).is_none(), "the same address in another form");
        let _other = seats.take(ip("10.0.0.2")).unwrap();
        drop(held);
        assert!(seats.take(ip("10.0.0.1")).is_some());
        assert_eq!(seats.taken.lock().by_source.len(), 1, "sources without a seat are forgotten");
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let seats = Seats::new(9, 1);
        let _one = seats.take(ip("fd00::1")).unwrap();
        assert!(seats.take(ip("fd00::2:3")).is_none());
        assert!(seats.take(ip("fd00:0:0:1::1")).is_some());
    }

    #[test]
    fn all_together_have_a_limit() {
        let seats = Seats::new(2, 2);
        let _held = (seats.take(ip("10.0.0.1")).unwrap(), seats.take(ip("10.0.0.2")).unwrap());
        assert!(seats.take(ip("10.0.0.3")).is_none());
    }
}
