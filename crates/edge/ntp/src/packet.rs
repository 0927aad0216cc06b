//! The packet of NTP version 4 (RFC 5905), as a client sends and reads it. Extensions and authentication are not read.

use std::time::Duration;

use crate::offset::Offset;

/// The part that every packet has.
const SIZE: usize = 48;
/// Seconds from the epoch of NTP to that of Unix.
const UNIX_EPOCH: u64 = 2_208_988_800;
const VERSION: u8 = 4;
const CLIENT: u8 = 3;
const SERVER: u8 = 4;
/// A server whose own distance from true time is more is of no use.
const MAX_DISTANCE: Duration = Duration::from_secs(3);
/// The highest number of servers to a reference clock.
const MAX_STRATUM: u8 = 15;

/// A time of NTP: seconds since 1900 in units of 2⁻³² s. It wraps around every 136 years; differences of less than 68 years are
/// right in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Of a time since the epoch of Unix.
    #[must_use]
    pub fn from_unix(time: Duration) -> Self {
        let seconds = time.as_secs().wrapping_add(UNIX_EPOCH) & u64::from(u32::MAX);
        let fraction = (u64::from(time.subsec_nanos()) << 32) / 1_000_000_000;
        Self(seconds << 32 | fraction)
    }

    /// The difference to another one, positive if this one is later.
    #[must_use]
    #[expect(clippy::cast_possible_wrap, reason = "the difference is signed on purpose")]
    fn since(self, other: Self) -> i128 {
        let units = i128::from(self.0.wrapping_sub(other.0) as i64);
        (units * 1_000_000_000) >> 32
    }
}

/// A second that is inserted or removed at the end of the day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Leap {
    #[default]
    None,
    Insert,
    Delete,
}

/// A packet that is no usable answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum PacketError {
    #[error("NTP packet of {0} bytes: there must be at least 48")]
    Size(usize),
    #[error("NTP packet of version {version} and mode {mode}: not the answer of a server")]
    Kind { version: u8, mode: u8 },
    #[error("NTP answer to another request")]
    Origin,
    #[error("the server's clock is not synchronized")]
    Unsynchronized,
    #[error("the server is {0} servers away from a clock")]
    Stratum(u8),
    #[error("the server may be wrong by {0:?}")]
    Distance(Duration),
    #[error("the server's times are not in order")]
    Order,
}

impl PacketError {
    /// Whether the packet is from somebody else, so that the answer may still come.
    #[must_use]
    pub const fn is_foreign(&self) -> bool {
        matches!(self, Self::Size(_) | Self::Kind { .. } | Self::Origin)
    }
}

/// A request and the time at which it was sent.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Returned by the server. Random instead of the time, so that nobody else can answer.
    cookie: u64,
    sent: Timestamp,
}

/// One look at a server's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// How far this clock is behind the server's.
    pub offset: Offset,
    /// The time on the way.
    pub round_trip: Duration,
    /// What the server announces.
    pub leap: Leap,
    /// From a clock of this machine, whose samples do not vary.
    pub is_local: bool,
}

/// What a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The time.
    Sample(Sample),
    /// A wish to be left alone, by its code (`RATE`, `DENY`, `RSTR`).
    KissOfDeath([u8; 4]),
}

impl Request {
    /// A request that is sent at that time of this machine's clock.
    #[must_use]
    pub const fn new(cookie: u64, sent: Timestamp) -> Self {
        Self { cookie, sent }
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[0] = VERSION << 3 | CLIENT;
        bytes[40..48].copy_from_slice(&self.cookie.to_be_bytes());
        bytes
    }

    /// Reads the answer that came so long after the request was sent.
    ///
    /// # Errors
    /// [`PacketError`]; see [`PacketError::is_foreign`].
    pub fn decode(&self, bytes: &[u8], elapsed: Duration) -> Result<Answer, PacketError> {
        let packet = bytes.first_chunk::<SIZE>().ok_or(PacketError::Size(bytes.len()))?;
        let (version, mode) = (packet[0] >> 3 & 7, packet[0] & 7);
        if !(3..=4).contains(&version) || mode != SERVER {
            return Err(PacketError::Kind { version, mode });
        }
        let time = |at: usize| {
            let mut octets = [0; 8];
            octets.copy_from_slice(&packet[at..at + 8]);
            Timestamp(u64::from_be_bytes(octets))
        };
        if time(24).0 != self.cookie {
            return Err(PacketError::Origin);
        }
        let short = |at: usize| {
            let units = u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
            Duration::from_nanos((u64::from(units) * 1_000_000_000) >> 16)
        };
        let leap = match packet[0] >> 6 {
            0 => Leap::None,
            1 => Leap::Insert,
            2 => Leap::Delete,
            _ if packet[1] == 0 => Leap::None,
            _ => return Err(PacketError::Unsynchronized),
        };
        match packet[1] {
            0 => return Ok(Answer::KissOfDeath([packet[12], packet[13], packet[14], packet[15]])),
            stratum if stratum > MAX_STRATUM => return Err(PacketError::Stratum(stratum)),
            _ => {}
        }
        let distance = short(4) / 2 + short(8);
        if distance > MAX_DISTANCE {
            return Err(PacketError::Distance(distance));
        }
        let (received, sent) = (time(32), time(40));
        if received.0 == 0 || sent.0 == 0 {
            return Err(PacketError::Unsynchronized);
        }
        let at_server = sent.since(received);
        let elapsed = i128::try_from(elapsed.as_nanos()).unwrap_or(i128::MAX);
        // A server that held the packet for longer than it was away has a clock that jumped.
        if at_server < 0 || at_server > elapsed + 1_000_000 {
            return Err(PacketError::Order);
        }
        let round_trip = (elapsed - at_server).max(0);
        // ((received - sent) + (sent by the server - came back)) / 2, where "came back" is "sent" and the elapsed time.
        let offset = (received.since(self.sent) + sent.since(self.sent) - elapsed) / 2;
        Ok(Answer::Sample(Sample {
            offset: Offset::from_nanos(i64::try_from(offset).map_err(|_| PacketError::Order)?),
            round_trip: Duration::from_nanos(u64::try_from(round_trip).unwrap_or(u64::MAX)),
            leap,
            is_local: false,
        }))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The answer of a server whose clock says `received` and `sent`.
    pub(crate) fn answer(request: &[u8], received: Timestamp, sent: Timestamp) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[0] = VERSION << 3 | SERVER;
        bytes[1] = 2;
        bytes[24..32].copy_from_slice(&request[40..48]);
        bytes[32..40].copy_from_slice(&received.0.to_be_bytes());
        bytes[40..48].copy_from_slice(&sent.0.to_be_bytes());
        bytes
    }

    const NOW: Duration = Duration::from_secs(1_790_000_000);

    fn request() -> Request {
        Request::new(0x0123_4567_89ab_cdef, Timestamp::from_unix(NOW))
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_unix(NOW + Duration::from_millis(millis))
    }

    #[test]
    fn offset_and_round_trip_come_from_the_four_times() {
        let bytes = answer(&request().encode(), at(1020), at(1030));
        let Answer::Sample(sample) = request().decode(&bytes, Duration::from_millis(50)).unwrap() else { panic!() };
        assert!((sample.offset.seconds() - 1.0).abs() < 1e-6, "{}", sample.offset);
        assert!(sample.round_trip.abs_diff(Duration::from_millis(40)) < Duration::from_micros(1));
    }

    #[test]
    fn a_clock_that_starts_in_1970_is_56_years_behind() {
        let request = Request::new(1, Timestamp::from_unix(Duration::from_secs(5)));
        let bytes = answer(&request.encode(), at(0), at(0));
        let Answer::Sample(sample) = request.decode(&bytes, Duration::ZERO).unwrap() else { panic!() };
        assert!((sample.offset.seconds() - 1_789_999_995.0).abs() < 1e-3, "{}", sample.offset);
    }

    #[test]
    fn times_wrap_around_in_2036() {
        let before = Duration::from_secs(2_085_978_495);
        let request = Request::new(1, Timestamp::from_unix(before));
        let after = Timestamp::from_unix(before + Duration::from_secs(2));
        let bytes = answer(&request.encode(), after, after);
        let Answer::Sample(sample) = request.decode(&bytes, Duration::ZERO).unwrap() else { panic!() };
        assert!((sample.offset.seconds() - 2.0).abs() < 1e-6, "{}", sample.offset);
    }

    #[test]
    fn what_is_no_usable_answer_is_refused_by_its_reason() {
        let good = answer(&request().encode(), at(0), at(0));
        let refused = |at: usize, byte: u8| {
            let mut bytes = good;
            bytes[at] = byte;
            request().decode(&bytes, Duration::from_millis(1)).unwrap_err()
        };
        assert_eq!(request().decode(&good[..47], Duration::ZERO).unwrap_err(), PacketError::Size(47));
        assert_eq!(refused(0, 4 << 3 | 3), PacketError::Kind { version: 4, mode: 3 });
        assert_eq!(refused(0, 1 << 3 | 4), PacketError::Kind { version: 1, mode: 4 });
        assert_eq!(refused(0, 3 << 6 | 4 << 3 | 4), PacketError::Unsynchronized);
        assert_eq!(refused(1, 16), PacketError::Stratum(16));
        assert_eq!(refused(8, 9), PacketError::Distance(Duration::from_secs(9 * 256)));
        assert_eq!(refused(31, 0), PacketError::Origin);
        assert_eq!(refused(43, good[43].wrapping_add(9)), PacketError::Order, "it held the packet for nine seconds");
        let zero = answer(&request().encode(), Timestamp(0), at(0));
        assert_eq!(request().decode(&zero, Duration::ZERO).unwrap_err(), PacketError::Unsynchronized);
    }

    #[test]
    fn a_kiss_of_death_has_a_code() {
        let mut bytes = answer(&request().encode(), Timestamp(0), Timestamp(0));
        bytes[0] |= 3 << 6;
        bytes[1] = 0;
        bytes[12..16].copy_from_slice(b"RATE");
        assert_eq!(request().decode(&bytes, Duration::ZERO).unwrap(), Answer::KissOfDeath(*b"RATE"));
    }

    proptest! {
        #[test]
        fn no_packet_panics(bytes in prop::collection::vec(any::<u8>(), 0..80), cookie: u64, sent: u64, millis: u32, own: bool) {
            let request = Request::new(cookie, Timestamp(sent));
            let mut bytes = bytes;
            if own && bytes.len() >= SIZE {
                bytes[0] = bytes[0] & 0xc0 | 4 << 3 | 4;
                bytes[24..32].copy_from_slice(&cookie.to_be_bytes());
            }
            if let Ok(Answer::Sample(sample)) = request.decode(&bytes, Duration::from_millis(millis.into())) {
                prop_assert!(sample.round_trip <= Duration::from_millis(millis.into()));
            }
        }
    }
}
