//! Decodes trees to typed values.
//!
//! Errors say the path and the position of what was wrong, also those that a type's own code raises without knowing
//! where it is. Unknown fields are found here, as each struct names its fields.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, Visitor, value};
use serde::forward_to_deserialize_any;

use super::node::{Entry, FieldPath, Kind, Node, Position, Segment};
use crate::plain::{self, Plain};

/// Failure to decode a tree as a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    pub message: String,
    pub hint: Option<String>,
    pub place: Option<(FieldPath, Position)>,
    /// The key itself is wrong, not its value.
    pub unknown: bool,
}

impl DecodeError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, place: None, unknown: false }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_value(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        match unexpected {
            de::Unexpected::Unsigned(value) => Self::new(format!("{value} is out of range, expected {expected}")),
            de::Unexpected::Signed(value) => Self::new(format!("{value} is out of range, expected {expected}")),
            other => Self::new(format!("{other} is not valid, expected {expected}")),
        }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("{variant:?} is not one of {}", expected.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("{field} is missing"))
    }
}

/// Decodes a whole document.
pub fn from_node<'de, T: de::Deserialize<'de>>(node: &'de Node) -> Result<T, DecodeError> {
    T::deserialize(De { node, path: &Path::Root })
}

enum Path<'a> {
    Root,
    Key(&'a Self, &'a str),
    Index(&'a Self, usize),
}

impl Path<'_> {
    fn owned(&self) -> FieldPath {
        let mut segments = Vec::new();
        let mut path = self;
        loop {
            match path {
                Path::Root => break,
                Path::Key(parent, key) => {
                    segments.push(Segment::Key((*key).to_owned()));
                    path = parent;
                }
                Path::Index(parent, index) => {
                    segments.push(Segment::Index(*index));
                    path = parent;
                }
            }
        }
        segments.reverse();
        FieldPath(segments)
    }
}

#[derive(Clone, Copy)]
struct De<'de, 'p> {
    node: &'de Node,
    path: &'p Path<'p>,
}

impl<'de> De<'de, '_> {
    /// Adds a position to an error without one.
    fn at<T>(self, result: Result<T, DecodeError>) -> Result<T, DecodeError> {
        result.map_err(|mut error| {
            error.place.get_or_insert_with(|| (self.path.owned(), self.node.at));
            error
        })
    }

    fn wrong(self, expected: &str) -> DecodeError {
        let mut error = DecodeError::new(format!("expected {expected}, found {}", self.node.describe()));
        error.place = Some((self.path.owned(), self.node.at));
        error
    }

    fn seq<V: Visitor<'de>>(self, items: &'de [Node], visitor: V) -> Result<V::Value, DecodeError> {
        self.at(visitor.visit_seq(Items { items: items.iter().enumerate(), path: self.path }))
    }

    fn map<V: Visitor<'de>>(self, entries: &'de [Entry], visitor: V) -> Result<V::Value, DecodeError> {
        self.at(visitor.visit_map(Entries { entries: entries.iter(), value: None, path: self.path }))
    }

    fn unsigned<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.kind {
            Kind::Null => self.at(visitor.visit_u64(0)),
            Kind::Scalar { text, .. } => match (plain::unsigned(text), plain::signed(text)) {
                (Some(value), _) => self.at(visitor.visit_u64(value)),
                (None, Some(value)) => self.at(visitor.visit_i64(value)),
                _ => Err(self.wrong("a whole number")),
            },
            _ => Err(self.wrong("a whole number")),
        }
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            self.unsigned(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for De<'de, '_> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.kind {
            Kind::Null => self.at(visitor.visit_unit()),
            Kind::List(items) => self.seq(items, visitor),
            Kind::Map(entries) => self.map(entries, visitor),
            Kind::Scalar { text, plain: false } => self.at(visitor.visit_borrowed_str(text)),
            Kind::Scalar { text, plain: true } => self.at(match plain::resolve(text) {
                Plain::Null => visitor.visit_unit(),
                Plain::Bool(value) => visitor.visit_bool(value),
                Plain::Unsigned(value) => visitor.visit_u64(value),
                Plain::Signed(value) => visitor.visit_i64(value),
                Plain::Float(value) => visitor.visit_f64(value),
                Plain::Text => visitor.visit_borrowed_str(text),
            }),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.kind {
            Kind::Null => self.at(visitor.visit_bool(false)),
            Kind::Scalar { text, plain: true } => match plain::boolean(text) {
                Some(value) => self.at(visitor.visit_bool(value)),
                None => Err(self.wrong("true or false")),
            },
            _ => Err(self.wrong("true or false")),
        }
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.kind {
            Kind::Null => self.at(visitor.visit_f64(0.0)),
            Kind::Scalar { text, .. } => match plain::float(text) {
                Some(value) => self.at(visitor.visit_f64(value)),
                None => Err(self.wrong("a number")),
            },
            _ => Err(self.wrong("a number")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.kind {
            Kind::Null => self.at(visitor.visit_borrowed_str("")),
            Kind::Scalar { text, .. } => self.at(visitor.visit_borrowed_str(text)),
            _ => Err(self.wrong("a text")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.node.kind == Kind::Null { self.at(visitor.visit_none()) } else { self.at(visitor.visit_some(self)) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.at(visitor.visit_newtype_struct(self))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.kind {
            Kind::Null => self.seq(&[], visitor),
            Kind::List(items) => self.seq(items, visitor),
            _ => Err(self.wrong("a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.kind {
            Kind::Null => self.map(&[], visitor),
            Kind::Map(entries) => self.map(entries, visitor),
            _ => Err(self.wrong("a mapping")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        if let Kind::Map(entries) = &self.node.kind
            && let Some(entry) = entries.iter().find(|e| !fields.contains(&e.key.as_str()))
        {
            let path = Path::Key(self.path, &entry.key).owned();
            return Err(DecodeError {
                message: format!("unknown field {:?}", entry.key),
                hint: suggestion(&entry.key, fields),
                place: Some((path, entry.at)),
                unknown: true,
            });
        }
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match &self.node.kind {
            Kind::Scalar { text, .. } => self.at(visitor.visit_enum(Variant(text))),
            _ => Err(self.wrong(&format!("one of {}", variants.join(", ")))),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.at(visitor.visit_unit())
    }

    forward_to_deserialize_any! { char bytes byte_buf unit unit_struct tuple tuple_struct identifier i128 u128 }
}

struct Items<'de, 'p> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
    path: &'p Path<'p>,
}

impl<'de> de::SeqAccess<'de> for Items<'de, '_> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        let path = Path::Index(self.path, index);
        let de = De { node, path: &path };
        de.at(seed.deserialize(de)).map(Some)
    }
}

struct Entries<'de, 'p> {
    entries: std::slice::Iter<'de, Entry>,
    value: Option<&'de Entry>,
    path: &'p Path<'p>,
}

impl<'de> de::MapAccess<'de> for Entries<'de, '_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        self.value = self.entries.next();
        match self.value {
            Some(entry) => seed.deserialize(value::BorrowedStrDeserializer::new(&entry.key)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        let Some(entry) = self.value.take() else { return Err(DecodeError::new("a value without its key")) };
        let path = Path::Key(self.path, &entry.key);
        let de = De { node: &entry.value, path: &path };
        de.at(seed.deserialize(de))
    }
}

struct Variant<'de>(&'de str);

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = DecodeError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), DecodeError> {
        let text: value::StrDeserializer<'_, DecodeError> = self.0.into_deserializer();
        Ok((seed.deserialize(text)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'de> {
    type Error = DecodeError;

    fn unit_variant(self) -> Result<(), DecodeError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _seed: T) -> Result<T::Value, DecodeError> {
        Err(DecodeError::new("expected a plain choice"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, DecodeError> {
        Err(DecodeError::new("expected a plain choice"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, DecodeError> {
        Err(DecodeError::new("expected a plain choice"))
    }
}

/// The most similar field, or all fields if there are few.
fn suggestion(key: &str, fields: &[&str]) -> Option<String> {
    let near = fields.iter().map(|field| (distance(key, field), field)).min();
    match near {
        Some((distance, field)) if distance <= 2 || field.eq_ignore_ascii_case(key) => {
            Some(format!("did you mean {field}?"))
        }
        _ if fields.is_empty() => Some("this mapping has no fields".to_owned()),
        _ if fields.len() <= 12 => Some(format!("fields here: {}", fields.join(", "))),
        _ => None,
    }
}

fn distance(one: &str, two: &str) -> usize {
    let two: Vec<char> = two.chars().collect();
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (i, a) in one.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in two.iter().enumerate() {
            let cost = diagonal + usize::from(!a.eq_ignore_ascii_case(b));
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[two.len()]
}
