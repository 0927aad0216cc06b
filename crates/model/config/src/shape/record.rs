//! Records a shape: a deserializer that has every field a type asks for, and notes what the type makes of it.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::Shape;
use crate::scalar::{DiskSize, PortRange};

pub(super) fn record<T: DeserializeOwned>() -> Result<Shape, Unreadable> {
    let mut shape = Shape::Any;
    T::deserialize(Recorder { shape: &mut shape, text: "", below_any: false })?;
    Ok(shape)
}

/// A type did not take what it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

impl de::Error for Unreadable {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

struct Recorder<'r> {
    shape: &'r mut Shape,
    /// The text that is given where one is asked for.
    text: &'static str,
    /// Inside a value of any type, which could go on for ever.
    below_any: bool,
}

impl Recorder<'_> {
    fn below(shape: &mut Shape) -> Recorder<'_> {
        Recorder { shape, text: "", below_any: false }
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
            *self.shape = Shape::Number;
            visitor.visit_u64(0)
        }
    )*};
}

impl<'de> Deserializer<'de> for Recorder<'_> {
    type Error = Unreadable;

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    /// A type that takes anything asks the same of what is below; one that takes a list or a single value knows its type.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        *self.shape = Shape::Any;
        if self.below_any {
            return visitor.visit_unit();
        }
        let mut element = Shape::Any;
        let value = visitor.visit_seq(Once { shape: Some(&mut element), below_any: true })?;
        if element != Shape::Any {
            *self.shape = Shape::OneOrMany(Box::new(element));
        }
        Ok(value)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        *self.shape = Shape::Boolean;
        visitor.visit_bool(false)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        *self.shape = Shape::Text;
        visitor.visit_str(self.text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        let named = match name {
            DiskSize::NAME => Some(Shape::Size),
            PortRange::NAME => Some(Shape::Port),
            _ => None,
        };
        let value = visitor.visit_newtype_struct(Recorder { shape: self.shape, text: "1", below_any: false })?;
        if let Some(named) = named {
            *self.shape = named;
        }
        Ok(value)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        let mut element = Shape::Any;
        let value = visitor.visit_seq(Once { shape: Some(&mut element), below_any: false })?;
        *self.shape = Shape::List(Box::new(element));
        Ok(value)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        let mut fields = vec![("*", Shape::Any)];
        let value = visitor.visit_map(Every { fields: fields.iter_mut(), current: None })?;
        *self.shape = Shape::Names(Box::new(fields.remove(0).1));
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        let mut fields: Vec<_> = fields.iter().map(|name| (*name, Shape::Any)).collect();
        let value = visitor.visit_map(Every { fields: fields.iter_mut(), current: None })?;
        *self.shape = Shape::Fields(name, fields);
        Ok(value)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        *self.shape = Shape::Words(variants);
        let first: StrDeserializer<'_, Unreadable> = variants.first().copied().unwrap_or_default().into_deserializer();
        visitor.visit_enum(first)
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// A list of one element.
struct Once<'r> {
    shape: Option<&'r mut Shape>,
    below_any: bool,
}

impl<'de> de::SeqAccess<'de> for Once<'_> {
    type Error = Unreadable;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Unreadable> {
        let Some(shape) = self.shape.take() else { return Ok(None) };
        seed.deserialize(Recorder { shape, text: "", below_any: self.below_any }).map(Some)
    }
}

/// A mapping with every field.
struct Every<'r> {
    fields: std::slice::IterMut<'r, (&'static str, Shape)>,
    current: Option<&'r mut Shape>,
}

impl<'de> de::MapAccess<'de> for Every<'_> {
    type Error = Unreadable;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Unreadable> {
        let Some((name, shape)) = self.fields.next() else { return Ok(None) };
        self.current = Some(shape);
        let key: StrDeserializer<'_, Unreadable> = (*name).into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Unreadable> {
        let Some(shape) = self.current.take() else { return Err(Unreadable("a value without its key".to_owned())) };
        seed.deserialize(Recorder::below(shape))
    }
}
