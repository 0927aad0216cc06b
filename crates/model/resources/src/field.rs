//! Conversion of values to YAML nodes and protobuf bytes, and from protobuf.
//!
//! A spec is a list of fields, each with a number and a key. [`Field`] is implemented by field types, [`Element`] by
//! values that may repeat or be absent. Field names are supplied by the `message!` macro.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use prost::encoding::{
    self, DecodeContext, WireType, check_wire_type, decode_key, decode_varint, encode_key, encode_varint,
};
use serde_json::Value;

pub use crate::decode_error::DecodeError;
use crate::object::{self, Object};

/// Standard base64.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The type of a field of a spec.
pub trait Field: Sized {
    /// Whether the text of its YAML form is a time stamp.
    const IS_TIMESTAMP: bool = false;
    /// The YAML form; absent values have one too (`""`, `null`, `[]`, `{}`).
    fn yaml(&self) -> Value;
    /// Whether `omitempty` omits the key.
    fn is_empty(&self) -> bool;
    /// Appends the field unless it has its default value.
    fn encode(&self, number: u32, out: &mut Vec<u8>);
    /// Decodes one occurrence of the field from `input`.
    fn merge(&mut self, wire_type: WireType, input: &mut &[u8]) -> Result<(), DecodeError>;
}

/// A value that may repeat (`Vec`) or be absent (`Option`).
pub trait Element: Sized {
    /// Whether `omitempty` omits present values too: Go's encoder takes structs without exported fields, as its addresses
    /// and prefixes are, for empty.
    const OMITTED: bool = false;
    /// The YAML form.
    fn element_yaml(&self) -> Value;
    /// The YAML form of an absent value.
    fn absent_yaml() -> Value {
        Value::Null
    }
    /// Appends one occurrence, even of a default value.
    fn encode_element(&self, number: u32, out: &mut Vec<u8>);
    /// Decodes one occurrence.
    fn decode_element(wire_type: WireType, input: &mut &[u8]) -> Result<Self, DecodeError>;
    /// Decodes one occurrence of a repeated field, which may hold packed values.
    fn decode_repeated(wire_type: WireType, input: &mut &[u8], into: &mut Vec<Self>) -> Result<(), DecodeError> {
        into.push(Self::decode_element(wire_type, input)?);
        Ok(())
    }
}

/// A list of numbered fields.
pub trait Message: Default + Clone + PartialEq + std::fmt::Debug {
    /// Adds the keys in order.
    fn write_yaml(&self, into: &mut Object);
    /// Appends all fields.
    fn write_proto(&self, out: &mut Vec<u8>);
    /// The keys of its own fields that are time stamps.
    fn timestamps() -> Vec<&'static str>;
    /// Decodes a field; false for an unknown number.
    fn merge_field(&mut self, number: u32, wire_type: WireType, input: &mut &[u8]) -> Result<bool, DecodeError>;
}

/// Decodes a message; unknown fields are skipped.
pub fn decode<M: Message>(mut input: &[u8]) -> Result<M, DecodeError> {
    let mut message = M::default();
    while !input.is_empty() {
        let (number, wire_type) = decode_key(&mut input)?;
        if !message.merge_field(number, wire_type, &mut input)? {
            encoding::skip_field(wire_type, number, &mut input, DecodeContext::default())?;
        }
    }
    Ok(message)
}

/// Writes `payload` as a length-delimited field.
pub fn encode_payload(number: u32, payload: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

/// Reads a length-delimited field.
pub fn take_payload<'a>(wire_type: WireType, input: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    check_wire_type(WireType::LengthDelimited, wire_type)?;
    let wanted = decode_varint(input)?;
    let length = usize::try_from(wanted)
        .ok()
        .filter(|length| *length <= input.len())
        .ok_or(DecodeError::Truncated { wanted, left: input.len() })?;
    let (payload, rest) = input.split_at(length);
    *input = rest;
    Ok(payload)
}

macro_rules! scalar_field {
    ($($type:ty => $encoding:ident as $wire:ty, $what:literal;)*) => {$(
        impl Field for $type {
            fn yaml(&self) -> Value {
                Value::from(self.clone())
            }
            fn is_empty(&self) -> bool {
                *self == Self::default()
            }
            fn encode(&self, number: u32, out: &mut Vec<u8>) {
                if !self.is_empty() {
                    encoding::$encoding::encode(number, &<$wire>::from(self.clone()), out);
                }
            }
            fn merge(&mut self, wire_type: WireType, input: &mut &[u8]) -> Result<(), DecodeError> {
                let mut value = <$wire>::default();
                encoding::$encoding::merge(wire_type, &mut value, input, DecodeContext::default())?;
                *self = narrow(value, $what)?;
                Ok(())
            }
        }
    )*};
}

/// Narrows a wire value to the type of a field.
fn narrow<From, To: TryFrom<From>>(value: From, what: &'static str) -> Result<To, DecodeError>
where
    From: Clone + ToString,
{
    To::try_from(value.clone())
        .map_err(|_| DecodeError::OutOfRange { what, value: value.to_string().parse().unwrap_or(i64::MAX) })
}

scalar_field! {
    String => string as String, "a string";
    bool => bool as bool, "a boolean";
    u8 => fixed32 as u32, "an 8-bit number";
    u16 => fixed32 as u32, "a 16-bit number";
    u32 => uint32 as u32, "a number";
    u64 => uint64 as u64, "a number";
    i64 => int64 as i64, "a number";
    f64 => double as f64, "a number";
}

impl<T: Element> Field for Vec<T> {
    fn yaml(&self) -> Value {
        Value::Array(self.iter().map(Element::element_yaml).collect())
    }
    fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
    fn encode(&self, number: u32, out: &mut Vec<u8>) {
        for element in self {
            element.encode_element(number, out);
        }
    }
    fn merge(&mut self, wire_type: WireType, input: &mut &[u8]) -> Result<(), DecodeError> {
        T::decode_repeated(wire_type, input, self)
    }
}

impl<T: Element> Field for Option<T> {
    fn yaml(&self) -> Value {
        self.as_ref().map_or_else(T::absent_yaml, Element::element_yaml)
    }
    fn is_empty(&self) -> bool {
        self.is_none() || T::OMITTED
    }
    fn encode(&self, number: u32, out: &mut Vec<u8>) {
        if let Some(element) = self {
            element.encode_element(number, out);
        }
    }
    fn merge(&mut self, wire_type: WireType, input: &mut &[u8]) -> Result<(), DecodeError> {
        *self = Some(T::decode_element(wire_type, input)?);
        Ok(())
    }
}

/// Bytes: a list of numbers in YAML.
impl Field for Vec<u8> {
    fn yaml(&self) -> Value {
        self.iter().map(|byte| Value::from(*byte)).collect()
    }
    fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
    fn encode(&self, number: u32, out: &mut Vec<u8>) {
        if !self.as_slice().is_empty() {
            encode_payload(number, self, out);
        }
    }
    fn merge(&mut self, wire_type: WireType, input: &mut &[u8]) -> Result<(), DecodeError> {
        *self = take_payload(wire_type, input)?.to_vec();
        Ok(())
    }
}

impl Field for BTreeMap<String, String> {
    fn yaml(&self) -> Value {
        self.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect()
    }
    fn is_empty(&self) -> bool {
        Self::is_empty(self)
    }
    fn encode(&self, number: u32, out: &mut Vec<u8>) {
        for (key, value) in self {
            let mut entry = Vec::new();
            key.encode(1, &mut entry);
            value.encode(2, &mut entry);
            encode_payload(number, &entry, out);
        }
    }
    fn merge(&mut self, wire_type: WireType, input: &mut &[u8]) -> Result<(), DecodeError> {
        let mut entry = take_payload(wire_type, input)?;
        let (mut key, mut value) = (String::new(), String::new());
        while !entry.is_empty() {
            let (number, wire_type) = decode_key(&mut entry)?;
            match number {
                1 => key.merge(wire_type, &mut entry)?,
                2 => value.merge(wire_type, &mut entry)?,
                _ => encoding::skip_field(wire_type, number, &mut entry, DecodeContext::default())?,
            }
        }
        self.insert(key, value);
        Ok(())
    }
}

impl Field for Object {
    fn yaml(&self) -> Value {
        object::sorted(self)
    }
    fn is_empty(&self) -> bool {
        Self::is_empty(self)
    }
    fn encode(&self, number: u32, out: &mut Vec<u8>) {
        if !self.is_empty() {
            encode_payload(number, &object::encode(self), out);
        }
    }
    fn merge(&mut self, wire_type: WireType, input: &mut &[u8]) -> Result<(), DecodeError> {
        *self = object::decode(take_payload(wire_type, input)?)?;
        Ok(())
    }
}

impl Element for String {
    fn element_yaml(&self) -> Value {
        Value::from(self.as_str())
    }
    fn encode_element(&self, number: u32, out: &mut Vec<u8>) {
        encode_payload(number, self.as_bytes(), out);
    }
    fn decode_element(wire_type: WireType, input: &mut &[u8]) -> Result<Self, DecodeError> {
        let mut text = Self::new();
        encoding::string::merge(wire_type, &mut text, input, DecodeContext::default())?;
        Ok(text)
    }
}

/// An address and a number: the wire form of addresses, prefixes and endpoints.
fn encode_address(number: u32, address: IpAddr, beside: Option<u16>, out: &mut Vec<u8>) {
    let mut payload = Vec::with_capacity(24);
    match address {
        IpAddr::V4(address) => encode_payload(1, &address.octets(), &mut payload),
        IpAddr::V6(address) => encode_payload(1, &address.octets(), &mut payload),
    }
    if let Some(beside) = beside.filter(|beside| *beside != 0) {
        encoding::int32::encode(2, &i32::from(beside), &mut payload);
    }
    encode_payload(number, &payload, out);
}

fn decode_address(wire_type: WireType, input: &mut &[u8]) -> Result<(IpAddr, i32), DecodeError> {
    let mut payload = take_payload(wire_type, input)?;
    let (mut address, mut beside) = (Vec::new(), 0);
    while !payload.is_empty() {
        let (number, wire_type) = decode_key(&mut payload)?;
        match number {
            1 => address = take_payload(wire_type, &mut payload)?.to_vec(),
            2 => encoding::int32::merge(wire_type, &mut beside, &mut payload, DecodeContext::default())?,
            _ => encoding::skip_field(wire_type, number, &mut payload, DecodeContext::default())?,
        }
    }
    let address = match address.len() {
        4 => <[u8; 4]>::try_from(address.as_slice()).ok().map(|octets| IpAddr::V4(Ipv4Addr::from(octets))),
        16 => <[u8; 16]>::try_from(address.as_slice()).ok().map(|octets| IpAddr::V6(Ipv6Addr::from(octets))),
        _ => None,
    }
    .ok_or(DecodeError::AddressLength(address.len()))?;
    Ok((address, beside))
}

impl Element for IpAddr {
    const OMITTED: bool = true;
    fn element_yaml(&self) -> Value {
        Value::from(self.to_string())
    }
    fn absent_yaml() -> Value {
        Value::from("")
    }
    fn encode_element(&self, number: u32, out: &mut Vec<u8>) {
        encode_address(number, *self, None, out);
    }
    fn decode_element(wire_type: WireType, input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(decode_address(wire_type, input)?.0)
    }
}

impl Element for IpNet {
    const OMITTED: bool = true;
    fn element_yaml(&self) -> Value {
        Value::from(self.to_string())
    }
    fn absent_yaml() -> Value {
        Value::from("")
    }
    fn encode_element(&self, number: u32, out: &mut Vec<u8>) {
        encode_address(number, self.addr(), Some(u16::from(self.prefix_len())), out);
    }
    fn decode_element(wire_type: WireType, input: &mut &[u8]) -> Result<Self, DecodeError> {
        let (address, length) = decode_address(wire_type, input)?;
        u8::try_from(length)
            .ok()
            .and_then(|length| Self::new(address, length).ok())
            .ok_or(DecodeError::OutOfRange { what: "a prefix length", value: length.into() })
    }
}

impl Element for SocketAddr {
    const OMITTED: bool = true;
    fn element_yaml(&self) -> Value {
        Value::from(self.to_string())
    }
    fn absent_yaml() -> Value {
        Value::from("")
    }
    fn encode_element(&self, number: u32, out: &mut Vec<u8>) {
        encode_address(number, self.ip(), Some(self.port()), out);
    }
    fn decode_element(wire_type: WireType, input: &mut &[u8]) -> Result<Self, DecodeError> {
        let (address, port) = decode_address(wire_type, input)?;
        let port = u16::try_from(port).map_err(|_| DecodeError::OutOfRange { what: "a port", value: port.into() })?;
        Ok(Self::new(address, port))
    }
}
