//! Decoding errors of specs.

/// Failure to decode a spec from protobuf.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Invalid protobuf, or a field with an unexpected wire type.
    #[error("decoding protobuf")]
    Protobuf(#[from] prost::DecodeError),
    /// A field longer than the remaining input.
    #[error("decoding protobuf: a field of {wanted} bytes has {left} left")]
    Truncated { wanted: u64, left: usize },
    /// An address of a length that is neither IPv4 nor IPv6.
    #[error("decoding an address of {0} bytes")]
    AddressLength(usize),
    /// A prefix longer than its address, or a port above 65535.
    #[error("decoding {what}: {value} is out of range")]
    OutOfRange { what: &'static str, value: i64 },
    /// An unknown text form of a scalar.
    #[error("decoding {what}: {value:?} is unknown")]
    Unknown { what: &'static str, value: String },
}
