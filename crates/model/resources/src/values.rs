//! Value types that the standard library lacks: PEM pairs, hardware addresses, durations, instants; URLs have their own
//! module.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use prost::encoding::WireType;
use serde_json::Value;

use crate::field::{DecodeError, Field, base64, encode_payload, take_payload};
pub use crate::url::Url;

/// PEM bytes; `Debug` shows only the length.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Pem(pub Vec<u8>);

impl Pem {
    /// The PEM text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<T: Into<Vec<u8>>> From<T> for Pem {
    fn from(bytes: T) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({} bytes)", self.0.len())
    }
}

impl Field for Pem {
    fn yaml(&self) -> Value {
        Value::from(base64(&self.0))
    }
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    fn encode(&self, number: u32, out: &mut Vec<u8>) {
        self.0.encode(number, out);
    }
    fn merge(&mut self, wire_type: WireType, input: &mut &[u8]) -> Result<(), DecodeError> {
        self.0.merge(wire_type, input)
    }
}

message! {
    /// A certificate and its private key, both PEM.
    CertificateAndKey {
        crt: Pem = 1 "crt",
        key: Pem = 2 "key",
    }
}

message! {
    /// A certificate, PEM.
    Certificate {
        crt: Pem = 1 "crt",
    }
}

message! {
    /// A private key, PEM.
    Key {
        key: Pem = 1 "key",
    }
}

impl CertificateAndKey {
    /// The pair of both PEM texts.
    pub fn new(crt: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        Self { crt: Pem(crt.into()), key: Pem(key.into()) }
    }
}

impl Certificate {
    /// The certificate in a PEM text.
    pub fn new(crt: impl Into<Vec<u8>>) -> Self {
        Self { crt: Pem(crt.into()) }
    }
}

impl Key {
    /// The key in a PEM text.
    pub fn new(key: impl Into<Vec<u8>>) -> Self {
        Self { key: Pem(key.into()) }
    }
}

/// A link-layer address of any length; printed as `aa:bb:cc:dd:ee:ff`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HardwareAddr(pub Vec<u8>);

impl fmt::Display for HardwareAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ":" };
            write!(f, "{separator}{byte:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for HardwareAddr {
    type Err = DecodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>();
        bytes.map(Self).map_err(|_| DecodeError::Unknown { what: "a hardware address", value: text.to_owned() })
    }
}

impl Field for HardwareAddr {
    fn yaml(&self) -> Value {
        Value::from(self.to_string())
    }
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    fn encode(&self, number: u32, out: &mut Vec<u8>) {
        self.0.encode(number, out);
    }
    fn merge(&mut self, wire_type: WireType, input: &mut &[u8]) -> Result<(), DecodeError> {
        self.0.merge(wire_type, input)
    }
}

/// A signed length of time in nanoseconds; printed as `1m30s`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanoseconds(pub i64);

impl From<Duration> for Nanoseconds {
    /// Saturates at 292 years.
    fn from(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl From<Nanoseconds> for Duration {
    /// Its absolute value.
    fn from(value: Nanoseconds) -> Self {
        Self::from_nanos(value.0.unsigned_abs())
    }
}

impl fmt::Display for Nanoseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 0 {
            f.write_str("-")?;
        }
        f.write_str(&stdx::duration::format(Duration::from(*self)))
    }
}

impl Field for Nanoseconds {
    fn yaml(&self) -> Value {
        Value::from(self.to_string())
    }
    fn is_empty(&self) -> bool {
        self.0 == 0
    }
    fn encode(&self, number: u32, out: &mut Vec<u8>) {
        if self.0 != 0 {
            let nanos = i32::try_from(self.0 % 1_000_000_000).unwrap_or_default();
            let duration = prost_types::Duration { seconds: self.0 / 1_000_000_000, nanos };
            encode_payload(number, &prost::Message::encode_to_vec(&duration), out);
        }
    }
    fn merge(&mut self, wire_type: WireType, input: &mut &[u8]) -> Result<(), DecodeError> {
        let duration = <prost_types::Duration as prost::Message>::decode(take_payload(wire_type, input)?)?;
        self.0 = duration.seconds.saturating_mul(1_000_000_000).saturating_add(duration.nanos.into());
        Ok(())
    }
}

/// An instant, or the zero instant if unset; printed as RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Timestamp(pub Option<prost_types::Timestamp>);

impl From<std::time::SystemTime> for Timestamp {
    fn from(time: std::time::SystemTime) -> Self {
        Self(Some(prost_types::Timestamp::from(time)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(timestamp) => write!(f, "{timestamp}"),
            None => f.write_str("0001-01-01T00:00:00Z"),
        }
    }
}

impl Field for Timestamp {
    const IS_TIMESTAMP: bool = true;
    fn yaml(&self) -> Value {
        Value::from(self.to_string())
    }
    fn is_empty(&self) -> bool {
        self.0.is_none()
    }
    fn encode(&self, number: u32, out: &mut Vec<u8>) {
        if let Some(timestamp) = self.0 {
            encode_payload(number, &prost::Message::encode_to_vec(&timestamp), out);
        }
    }
    fn merge(&mut self, wire_type: WireType, input: &mut &[u8]) -> Result<(), DecodeError> {
        self.0 = Some(<prost_types::Timestamp as prost::Message>::decode(take_payload(wire_type, input)?)?);
        Ok(())
    }
}

message! {
    /// A range of user or group ids mapped into a container.
    IdMapping {
        container_id: u32 = 1 "containerid",
        host_id: u32 = 2 "hostid",
        size: u32 = 3 "size",
    }
}

message! {
    /// A mount of a container.
    Mount {
        destination: String = 1 "destination",
        r#type: String = 2 "type",
        source: String = 3 "source",
        options: Vec<String> = 4 "options",
        uid_mappings: Vec<IdMapping> = 5 "uidmappings",
        gid_mappings: Vec<IdMapping> = 6 "gidmappings",
    }
}
