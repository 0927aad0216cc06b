//! The shape of documents: which fields a kind has, and the kind of value of each.
//!
//! Shapes are recorded from the types themselves, by decoding each type once from a source that has every field, so that
//! they cannot differ from what is decoded. Merging asks them where a mapping is free-form, and the JSON schema is written
//! from them.

use std::sync::LazyLock;

use serde_json::Value;
use yaml::{Kind, Node, plain};

use crate::kinds::{
    EventSinkConfig, ExtensionServiceConfig, KmsgLogConfig, NetworkDefaultActionConfig, NetworkRuleConfig,
    SideroLinkConfig, UpgradeTrialConfig, WatchdogTimerConfig,
};
use crate::v1alpha1::Config;

mod record;

/// The kind of the root document, which does not write it.
pub(crate) const ROOT: &str = "v1alpha1";

type Recorded = fn() -> Shape;

const KINDS: [(&str, Recorded); 9] = [
    (ROOT, shape_of::<Config>),
    ("NetworkDefaultActionConfig", shape_of::<NetworkDefaultActionConfig>),
    ("NetworkRuleConfig", shape_of::<NetworkRuleConfig>),
    ("ExtensionServiceConfig", shape_of::<ExtensionServiceConfig>),
    ("EventSinkConfig", shape_of::<EventSinkConfig>),
    ("KmsgLogConfig", shape_of::<KmsgLogConfig>),
    ("WatchdogTimerConfig", shape_of::<WatchdogTimerConfig>),
    ("UpgradeTrialConfig", shape_of::<UpgradeTrialConfig>),
    ("SideroLinkConfig", shape_of::<SideroLinkConfig>),
];

/// What a place of a document may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Boolean,
    Number,
    Text,
    /// One of these words.
    Words(&'static [&'static str]),
    /// A number of bytes, or a text with a unit.
    Size,
    /// A port, or a text with a range of ports.
    Port,
    List(Box<Self>),
    /// A list that may be written as its only element.
    OneOrMany(Box<Self>),
    /// A mapping whose keys the user chooses.
    Names(Box<Self>),
    /// A mapping with these fields and no others, and the name of its type.
    Fields(&'static str, Vec<(&'static str, Self)>),
    /// Anything: the inside of objects that are not ours.
    Any,
}

static SHAPES: LazyLock<Vec<(&'static str, Shape)>> =
    LazyLock::new(|| KINDS.iter().map(|(name, shape)| (*name, shape())).collect());

/// All kinds with their shapes, the root document first.
pub(crate) fn all() -> &'static [(&'static str, Shape)] {
    &SHAPES
}

/// The shape of a kind of document; `None` for kinds that do not exist.
pub(crate) fn of(kind: &str) -> Option<&'static Shape> {
    SHAPES.iter().find(|(name, _)| *name == kind).map(|(_, shape)| shape)
}

/// A test holds that each kind can be recorded.
fn shape_of<T: serde::de::DeserializeOwned>() -> Shape {
    record::record::<T>().unwrap_or(Shape::Any)
}

impl Shape {
    /// The shape of the value of a key.
    pub(crate) fn at(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Fields(_, fields) => fields.iter().find(|(name, _)| *name == key).map(|(_, shape)| shape),
            Self::Names(inner) => Some(inner),
            _ => None,
        }
    }

    /// The shape of the elements of a list.
    pub(crate) fn element(&self) -> Option<&Self> {
        match self {
            Self::List(inner) | Self::OneOrMany(inner) => Some(inner),
            _ => None,
        }
    }

    /// A mapping of any content that is not ours.
    pub(crate) fn is_free(&self) -> bool {
        matches!(self, Self::Any) || matches!(self, Self::Names(inner) if **inner == Self::Any)
    }
}

/// A tree as a value whose scalars have the type that their place asks for: `yes` is true where a boolean is, and `5` a
/// text where a text is. Where there is no shape, as the tree looks.
pub(crate) fn value_of(node: &Node, shape: Option<&Shape>) -> Value {
    match (&node.kind, shape) {
        (_, None) => node.to_value(),
        (_, Some(shape)) if shape.is_free() => node.to_value(),
        (Kind::Null, _) => Value::Null,
        (Kind::List(items), Some(shape)) => items.iter().map(|item| value_of(item, shape.element())).collect(),
        (_, Some(Shape::OneOrMany(inner))) => Value::Array(vec![value_of(node, Some(inner))]),
        (Kind::Map(entries), Some(shape)) => Value::Object(
            entries.iter().map(|entry| (entry.key.clone(), value_of(&entry.value, shape.at(&entry.key)))).collect(),
        ),
        (Kind::Scalar { text, .. }, Some(Shape::Boolean)) => {
            plain::boolean(text).map_or_else(|| node.to_value(), Value::Bool)
        }
        (Kind::Scalar { text, .. }, Some(Shape::Number)) => {
            plain::unsigned(text).map_or_else(|| node.to_value(), Value::from)
        }
        (Kind::Scalar { text, .. }, Some(Shape::Text | Shape::Words(_))) => Value::String(text.clone()),
        (Kind::Scalar { .. }, _) => node.to_value(),
    }
}

#[cfg(test)]
mod tests;
