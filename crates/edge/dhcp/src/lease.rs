//! What a server grants, taken from its answer and checked.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::code::Code;
use crate::message::Message;
use crate::options::is_host;

/// The lease of a server that tells none.
const DEFAULT_TIME: Duration = Duration::from_secs(60 * 60);
/// Shorter leases are taken as this long: the client renews at most every five seconds.
const MIN_TIME: Duration = Duration::from_secs(10);
/// How long the client leaves a lease alone at least.
const MIN_RENEWAL: Duration = Duration::from_secs(5);
/// A lease without an end.
const INFINITE: u32 = u32::MAX;

/// An answer that grants nothing usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum LeaseError {
    #[error("the server offers {0}, which no host can have")]
    Address(Ipv4Addr),
    #[error("the server does not say who it is")]
    Server,
}

/// The address and settings of a link for some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address with the length of its prefix; 32 where the server tells no mask.
    pub address: Ipv4Net,
    /// The server's identifier.
    pub server: Ipv4Addr,
    /// The default routers, by preference.
    pub routers: Vec<Ipv4Addr>,
    /// Classless routes; where there are any, `routers` does not count (RFC 3442).
    pub routes: Vec<(Ipv4Net, Option<Ipv4Addr>)>,
    /// DNS servers.
    pub dns_servers: Vec<Ipv4Addr>,
    /// Time servers.
    pub time_servers: Vec<Ipv4Addr>,
    /// The name of the host, perhaps with a domain.
    pub host_name: Option<String>,
    /// The domain of the host.
    pub domain_name: Option<String>,
    /// The domains in which names without one are looked for.
    pub domain_search: Vec<String>,
    /// The largest packet on the link.
    pub mtu: Option<u16>,
    /// How long it lasts from the answer on; `None` without end.
    pub time: Option<Duration>,
    /// When to ask its server for more time.
    pub renewal: Option<Duration>,
    /// When to ask any server.
    pub rebinding: Option<Duration>,
}

impl Lease {
    /// Of an offer or an acknowledgement.
    ///
    /// # Errors
    /// [`LeaseError`]
    pub fn from_message(message: &Message) -> Result<Self, LeaseError> {
        let address = message.yiaddr;
        if !is_host(address) {
            return Err(LeaseError::Address(address));
        }
        let server = message.address(Code::ServerId).filter(|server| is_host(*server)).ok_or(LeaseError::Server)?;
        let seconds = |code| message.number(code).map(|seconds| Duration::from_secs(seconds.into()));
        let time = match message.number(Code::LeaseTime) {
            Some(INFINITE) => None,
            Some(seconds) => Some(Duration::from_secs(seconds.into()).max(MIN_TIME)),
            None => Some(DEFAULT_TIME),
        };
        let renewal = time.map(|time| {
            let asked = seconds(Code::RenewalTime).filter(|renewal| *renewal < time);
            asked.unwrap_or(time / 2).max(MIN_RENEWAL)
        });
        let rebinding = time.zip(renewal).map(|(time, renewal)| {
            let asked = seconds(Code::RebindingTime).filter(|rebinding| *rebinding > renewal && *rebinding < time);
            asked.unwrap_or(time / 8 * 7).clamp(renewal, time)
        });
        let prefix_len = message.prefix_len().filter(|length| *length > 0).unwrap_or(32);
        Ok(Self {
            address: Ipv4Net::new(address, prefix_len).map_err(|_| LeaseError::Address(address))?,
            server,
            routers: message.addresses(Code::Router),
            routes: message.classless_routes(),
            dns_servers: message.addresses(Code::DnsServers),
            time_servers: message.addresses(Code::NtpServers),
            host_name: message.name(Code::HostName),
            domain_name: message.name(Code::DomainName),
            domain_search: message.domain_search(),
            mtu: message.mtu(),
            time,
            renewal,
            rebinding,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageType;

    fn granting(address: [u8; 4]) -> Message {
        let mut message = Message::request(1, [0; 6]).reply().of(MessageType::Ack).with(Code::ServerId, [10, 0, 2, 2]);
        message.yiaddr = address.into();
        message
    }

    fn seconds(lease: &Lease) -> (Option<u64>, Option<u64>, Option<u64>) {
        let whole = |time: Option<Duration>| time.map(|time| time.as_secs());
        (whole(lease.time), whole(lease.renewal), whole(lease.rebinding))
    }

    #[test]
    fn times_are_bounded_and_in_order() {
        let of = |time: Option<u32>, renewal: Option<u32>, rebinding: Option<u32>| {
            let mut message = granting([10, 0, 2, 15]);
            let options = [(Code::LeaseTime, time), (Code::RenewalTime, renewal), (Code::RebindingTime, rebinding)];
            for (code, value) in options {
                if let Some(value) = value {
                    message = message.with(code, value.to_be_bytes());
                }
            }
            seconds(&Lease::from_message(&message).unwrap())
        };
        assert_eq!(of(Some(800), None, None), (Some(800), Some(400), Some(700)));
        assert_eq!(of(Some(800), Some(100), Some(200)), (Some(800), Some(100), Some(200)));
        assert_eq!(of(Some(800), Some(900), Some(200)), (Some(800), Some(400), Some(700)), "out of order");
        assert_eq!(of(Some(0), Some(0), None), (Some(10), Some(5), Some(8)), "the client does not flood");
        assert_eq!(of(Some(u32::MAX), None, None), (None, None, None));
        assert_eq!(of(None, None, None).0, Some(3600));
    }

    #[test]
    fn an_address_that_no_host_can_have_is_refused() {
        let error = Lease::from_message(&granting([224, 0, 0, 1])).unwrap_err();
        assert_eq!(error, LeaseError::Address([224, 0, 0, 1].into()));
        let mut nameless = granting([10, 0, 2, 15]);
        nameless.options.remove(&Code::ServerId.number());
        assert_eq!(Lease::from_message(&nameless).unwrap_err(), LeaseError::Server);
    }

    #[test]
    fn a_server_without_a_mask_grants_a_single_address() {
        let lease = Lease::from_message(&granting([10, 0, 2, 15])).unwrap();
        assert_eq!(lease.address.to_string(), "10.0.2.15/32");
    }
}
