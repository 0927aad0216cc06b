//! Free-form objects: JSON trees, and `google.protobuf.Struct` on the wire.
//!
//! Numbers cross the wire as doubles; whole numbers come back as integers.

use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct};
use serde_json::{Map, Number, Value};

use crate::decode_error::DecodeError;

/// A JSON object.
pub type Object = Map<String, Value>;

/// The same object with sorted keys at each level, as it is printed.
pub fn sorted(object: &Object) -> Value {
    let mut entries: Vec<_> = object.iter().collect();
    entries.sort_by_key(|(key, _)| key.as_str());
    entries.into_iter().map(|(key, value)| (key.clone(), sorted_value(value))).collect()
}

fn sorted_value(value: &Value) -> Value {
    match value {
        Value::Object(object) => sorted(object),
        Value::Array(values) => values.iter().map(sorted_value).collect(),
        other => other.clone(),
    }
}

/// The bytes of the `Struct`.
pub fn encode(object: &Object) -> Vec<u8> {
    to_struct(object).encode_to_vec()
}

/// The object in the bytes of a `Struct`.
pub fn decode(bytes: &[u8]) -> Result<Object, DecodeError> {
    Ok(from_struct(Struct::decode(bytes)?))
}

fn to_struct(object: &Object) -> Struct {
    Struct { fields: object.iter().map(|(key, value)| (key.clone(), to_value(value))).collect() }
}

fn to_value(value: &Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        Value::String(value) => Kind::StringValue(value.clone()),
        Value::Array(values) => Kind::ListValue(ListValue { values: values.iter().map(to_value).collect() }),
        Value::Object(object) => Kind::StructValue(to_struct(object)),
    };
    prost_types::Value { kind: Some(kind) }
}

fn from_struct(object: Struct) -> Object {
    object.fields.into_iter().map(|(key, value)| (key, from_value(value))).collect()
}

fn from_value(value: prost_types::Value) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::NumberValue(value)) => number(value),
        Some(Kind::StringValue(value)) => Value::String(value),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(from_value).collect(),
        Some(Kind::StructValue(object)) => Value::Object(from_struct(object)),
    }
}

/// 2^53: up to here every whole double is an exact integer.
const EXACT: f64 = 9_007_199_254_740_992.0;

fn number(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
    if value.fract() == 0.0 && value.abs() <= EXACT {
        return Value::from(value as i64);
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}
