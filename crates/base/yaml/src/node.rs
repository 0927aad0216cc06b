//! The tree: values with their positions, and paths into it.

use std::fmt;

use crate::plain::{self, Plain};

/// A place in a text; both count from one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub kind: Kind,
    pub at: Position,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Null,
    /// Plain scalars may be numbers or booleans; others are text.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: String,
    pub at: Position,
    pub value: Node,
}

impl Node {
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.value),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Position of the deepest existing part of a path.
    pub fn locate(&self, path: &[Segment]) -> Position {
        let mut node = self;
        let mut at = self.at;
        for segment in path {
            let next = match (&node.kind, segment) {
                (Kind::Map(entries), Segment::Key(key)) => {
                    entries.iter().find(|e| e.key == *key).map(|e| (e.at, &e.value))
                }
                (Kind::List(items), Segment::Index(index)) => items.get(*index).map(|n| (n.at, n)),
                _ => None,
            };
            let Some((position, next)) = next else { return at };
            at = position;
            node = next;
        }
        // the value's position is more precise than its key's, unless it is a block below it
        if matches!(node.kind, Kind::Scalar { .. }) { node.at } else { at }
    }

    /// Removes the value at a path: a mapping loses the key, a list keeps its length. `false` if there is none.
    pub fn blank(&mut self, path: &[Segment], remove_key: bool) -> bool {
        let Some((last, parents)) = path.split_last() else {
            let had = self.kind != Kind::Null;
            self.kind = Kind::Null;
            return had;
        };
        let mut node = self;
        for segment in parents {
            let next = match (&mut node.kind, segment) {
                (Kind::Map(entries), Segment::Key(key)) => {
                    entries.iter_mut().find(|e| e.key == *key).map(|e| &mut e.value)
                }
                (Kind::List(items), Segment::Index(index)) => items.get_mut(*index),
                _ => None,
            };
            let Some(next) = next else { return false };
            node = next;
        }
        match (&mut node.kind, last) {
            (Kind::Map(entries), Segment::Key(key)) => {
                let Some(index) = entries.iter().position(|e| e.key == *key) else { return false };
                if remove_key || entries[index].value.kind == Kind::Null {
                    entries.remove(index);
                } else {
                    entries[index].value.kind = Kind::Null;
                }
                true
            }
            (Kind::List(items), Segment::Index(index)) => match items.get_mut(*index) {
                Some(item) if item.kind != Kind::Null => {
                    item.kind = Kind::Null;
                    true
                }
                _ => false,
            },
            _ => false,
        }
    }

    /// The value without positions; plain scalars get the type that they look like.
    pub fn to_value(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Scalar { text, plain: false } => Value::String(text.clone()),
            Kind::Scalar { text, plain: true } => match plain::resolve(text) {
                Plain::Null => Value::Null,
                Plain::Bool(value) => Value::Bool(value),
                Plain::Unsigned(value) => Value::from(value),
                Plain::Signed(value) => Value::from(value),
                Plain::Float(value) => Value::from(value),
                Plain::Text => Value::String(text.clone()),
            },
            Kind::List(items) => items.iter().map(Self::to_value).collect(),
            Kind::Map(entries) => Value::Object(entries.iter().map(|e| (e.key.clone(), e.value.to_value())).collect()),
        }
    }

    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Null => "nothing".to_owned(),
            Kind::Scalar { text, .. } if text.chars().count() > 40 => "a long text".to_owned(),
            Kind::Scalar { text, .. } => format!("{text:?}"),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a mapping".to_owned(),
        }
    }
}

/// One step into a tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    Key(String),
    Index(usize),
}

/// A path into a document, shown as `machine.network.interfaces[0].mtu`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath(pub Vec<Segment>);

impl FieldPath {
    pub fn key(&self, key: &str) -> Self {
        let mut segments = self.0.clone();
        segments.push(Segment::Key(key.to_owned()));
        Self(segments)
    }

    pub fn index(&self, index: usize) -> Self {
        let mut segments = self.0.clone();
        segments.push(Segment::Index(index));
        Self(segments)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if key.contains(['.', '[', '/']) => write!(f, "[{key:?}]")?,
                Segment::Key(key) if i == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
