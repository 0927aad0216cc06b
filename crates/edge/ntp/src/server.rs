//! The answer of a server, for networks whose machines reach no other one, such as local clusters.

use crate::packet::Timestamp;

const SIZE: usize = 48;
const SERVER: u8 = 4;
const CLIENT: u8 = 3;
/// Far from a reference clock, so that any real server is preferred by clients that compare.
const STRATUM: u8 = 10;
/// 2⁻²⁰ s, about a microsecond.
const PRECISION: i8 = -20;
/// A clock that nothing else disciplines.
const REFERENCE: [u8; 4] = *b"LOCL";

/// The answer to a client's request that came at `received` and is answered at `now`; nothing for anything else.
///
/// It has the size of the request without extensions, so that nobody can be flooded by a forged sender.
#[must_use]
pub fn respond(request: &[u8], received: Timestamp, now: Timestamp) -> Option<[u8; SIZE]> {
    let request = request.first_chunk::<SIZE>()?;
    let version = request[0] >> 3 & 7;
    if !(3..=4).contains(&version) || request[0] & 7 != CLIENT {
        return None;
    }
    let mut answer = [0; SIZE];
    answer[0] = version << 3 | SERVER;
    answer[1] = STRATUM;
    answer[2] = request[2];
    answer[3] = PRECISION.to_be_bytes()[0];
    answer[12..16].copy_from_slice(&REFERENCE);
    answer[16..24].copy_from_slice(&received.0.to_be_bytes());
    answer[24..32].copy_from_slice(&request[40..48]);
    answer[32..40].copy_from_slice(&received.0.to_be_bytes());
    answer[40..48].copy_from_slice(&now.0.to_be_bytes());
    Some(answer)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::packet::{Answer, Request};

    #[test]
    fn a_client_takes_the_answer() {
        let at = |seconds: u64| Timestamp::from_unix(Duration::from_secs(1_790_000_000 + seconds));
        let request = Request::new(7, at(0));
        let answer = respond(&request.encode(), at(60), at(60)).unwrap();
        let Answer::Sample(sample) = request.decode(&answer, Duration::ZERO).unwrap() else { panic!() };
        assert!((sample.offset.seconds() - 60.0).abs() < 1e-6);
    }

    #[test]
    fn only_requests_of_clients_are_answered() {
        let request = Request::new(7, Timestamp(1)).encode();
        let answer = respond(&request, Timestamp(1), Timestamp(1)).unwrap();
        assert_eq!(respond(&answer, Timestamp(1), Timestamp(1)), None, "two servers would answer each other for ever");
        assert_eq!(respond(&request[..47], Timestamp(1), Timestamp(1)), None);
    }
}
