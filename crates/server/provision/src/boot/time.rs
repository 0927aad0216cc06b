//! The time server of a cluster's machines: this host's clock, told on the gateway. Pure.
//!
//! Machines have a clock of their own, and wait for a time server before they start etcd and the kubelet; without a network
//! beyond the host there is no other one.

use std::time::{Duration, SystemTime};

use ntp::Timestamp;

/// Where clients ask (NTP).
pub(crate) const USUAL_PORT: u16 = 123;
/// Where the agent listens. The cluster's rules lead there from the usual port, which a server of the host may have.
pub(crate) const PORT: u16 = 3123;
/// A question has 48 bytes; what follows them is not read.
pub(crate) const LONGEST: usize = 512;

/// The answer to a packet, with the host's time; none to what is no question.
pub(crate) fn answer(packet: &[u8], now: SystemTime) -> Option<Vec<u8>> {
    let since_epoch: Duration = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let now = Timestamp::from_unix(since_epoch);
    ntp::respond(packet, now, now).map(Vec::from)
}

#[cfg(test)]
mod tests {
    use ntp::{Answer, Request};
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_machine_whose_clock_is_years_behind_hears_how_much() {
        let years = 15 * 365 * 86_400;
        let request = Request::new(7, Timestamp::from_unix(Duration::from_secs(1_790_000_000 - years)));
        let answer = answer(&request.encode(), at(1_790_000_000)).unwrap();
        let Answer::Sample(sample) = request.decode(&answer, Duration::ZERO).unwrap() else { panic!("refused") };
        let wanted = Duration::from_secs(years).as_secs_f64();
        assert!((sample.offset.seconds() - wanted).abs() < 1e-3, "{}", sample.offset);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_stumble(packet in prop::collection::vec(any::<u8>(), 0..LONGEST)) {
            if let Some(answer) = answer(&packet, at(1_790_000_000)) {
                prop_assert!(answer.len() <= packet.len());
            }
        }
    }
}
