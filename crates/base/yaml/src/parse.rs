//! Parses text to one tree per document.
//!
//! The text may come from anybody, so that everything is bounded: the length of the text, the depth, and the number and
//! the size of values after aliases were followed, so that a small text cannot become a large tree. The time taken is
//! linear in the length of the text: keys are compared by a set and never one by one.

use std::collections::{HashMap, HashSet};

use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle};

use super::node::{Entry, Kind, Node, Position};

/// Levels of lists and mappings. The deepest field of a machine configuration is at 12; objects of Kubernetes in it reach
/// half of this.
pub const MAX_DEPTH: usize = 64;
/// Values of all documents with what aliases stand for, and what anchors keep for them. A large machine configuration
/// has 2,000.
pub const MAX_NODES: usize = 200_000;
/// Bytes of a text, and of all its keys and values with what aliases stand for: twice as much as a call of the API takes.
pub const MAX_BYTES: usize = 8 << 20;

/// Failure to parse a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Which document, from zero.
    pub document: usize,
    pub at: Position,
    pub message: String,
}

/// All documents of a text, in order; empty ones are left out.
///
/// # Errors
/// The first thing that is not YAML, or beyond [`MAX_DEPTH`], [`MAX_NODES`] or [`MAX_BYTES`].
pub fn parse(text: &str) -> Result<Vec<Node>, ParseError> {
    let mut builder = Builder::default();
    if text.len() > MAX_BYTES {
        return Err(builder.error(Position { line: 1, column: 1 }, format!("more than {MAX_BYTES} bytes")));
    }
    for item in Parser::new_from_str(text) {
        let (event, span) = item.map_err(|e| builder.error(position(e.marker()), e.info()))?;
        builder.event(event, position(&span.start))?;
    }
    Ok(builder.documents)
}

fn position(marker: &Marker) -> Position {
    Position { line: marker.line().max(1), column: marker.col() + 1 }
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, Size)>,
    total: Size,
}

/// Size of a tree.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    nodes: usize,
    bytes: usize,
}

impl std::ops::AddAssign for Size {
    fn add_assign(&mut self, other: Self) {
        self.nodes += other.nodes;
        self.bytes += other.bytes;
    }
}

/// An open list or mapping; `key` waits for its value.
struct Open {
    node: Node,
    /// The keys of a mapping so far.
    keys: HashSet<String>,
    /// With everything below it so far.
    size: Size,
    anchor: usize,
    key: Option<Key>,
    merges: Vec<Node>,
}

struct Key {
    text: String,
    at: Position,
    /// `<<` without quotes.
    merge: bool,
}

impl Builder {
    fn error(&self, at: Position, message: impl Into<String>) -> ParseError {
        ParseError { document: self.documents.len(), at, message: message.into() }
    }

    fn event(&mut self, event: Event<'_>, at: Position) -> Result<(), ParseError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let text_tag = tag.is_some_and(|t| t.is_yaml_core_schema_tag("str"));
                let plain = style == ScalarStyle::Plain && !text_tag;
                let kind = match (plain, text.as_ref()) {
                    (true, "" | "~" | "null" | "Null" | "NULL") => Kind::Null,
                    _ => Kind::Scalar { text: text.into_owned(), plain },
                };
                // a null key is kept as empty text
                let bytes = if let Kind::Scalar { text, .. } = &kind { text.len() } else { 0 };
                let size = Size { nodes: 1, bytes };
                self.spend(size, at)?;
                self.add(Node { kind, at }, anchor, size)
            }
            Event::SequenceStart(_, anchor, _) => self.open(Kind::List(Vec::new()), anchor, at),
            Event::MappingStart(_, anchor, _) => self.open(Kind::Map(Vec::new()), anchor, at),
            Event::SequenceEnd | Event::MappingEnd => self.close(at),
            Event::Alias(id) => {
                let Some(size) = self.anchors.get(&id).map(|(_, size)| *size) else {
                    return Err(self.error(at, "an alias refers to a value that contains it"));
                };
                // before the copy is made
                self.spend(size, at)?;
                let Some((node, _)) = self.anchors.get(&id).cloned() else { return Ok(()) };
                self.add(node, 0, size)
            }
            Event::DocumentStart(..) => {
                self.anchors.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, kind: Kind, anchor: usize, at: Position) -> Result<(), ParseError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(self.error(at, format!("values are nested more than {MAX_DEPTH} levels deep")));
        }
        let size = Size { nodes: 1, bytes: 0 };
        self.spend(size, at)?;
        let node = Node { kind, at };
        self.open.push(Open { node, keys: HashSet::new(), size, anchor, key: None, merges: Vec::new() });
        Ok(())
    }

    /// Counts a value before it is added.
    fn spend(&mut self, size: Size, at: Position) -> Result<(), ParseError> {
        self.total += size;
        if self.total.nodes > MAX_NODES {
            return Err(self.error(at, format!("more than {MAX_NODES} values")));
        }
        if self.total.bytes > MAX_BYTES {
            return Err(self.error(at, format!("values of more than {MAX_BYTES} bytes")));
        }
        Ok(())
    }

    fn close(&mut self, at: Position) -> Result<(), ParseError> {
        let Some(mut open) = self.open.pop() else { return Err(self.error(at, "unexpected end of a value")) };
        if let Kind::Map(entries) = &mut open.node.kind {
            for merged in open.merges {
                merge_into(entries, &mut open.keys, merged);
            }
        }
        self.add(open.node, open.anchor, open.size)
    }

    /// Adds an already counted value to the open list or mapping.
    fn add(&mut self, node: Node, anchor: usize, size: Size) -> Result<(), ParseError> {
        if anchor != 0 {
            self.spend(size, node.at)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let document = self.documents.len();
        let fail = |at, message: String| Err(ParseError { document, at, message });
        let Some(open) = self.open.last_mut() else {
            if node.kind != Kind::Null {
                self.documents.push(node);
            }
            return Ok(());
        };
        open.size += size;
        match &mut open.node.kind {
            Kind::List(items) => items.push(node),
            Kind::Map(entries) => match open.key.take() {
                None => match node.kind {
                    Kind::Scalar { .. } | Kind::Null => {
                        let (text, plain) = match node.kind {
                            Kind::Scalar { text, plain } => (text, plain),
                            _ => (String::new(), true),
                        };
                        let merge = plain && text == "<<";
                        if !merge && !open.keys.insert(text.clone()) {
                            return fail(node.at, format!("duplicate key {text:?}"));
                        }
                        open.key = Some(Key { text, at: node.at, merge });
                    }
                    _ => return fail(node.at, "a key must be a simple value".to_owned()),
                },
                Some(Key { merge: true, .. }) => match node.kind {
                    Kind::Map(_) => open.merges.push(node),
                    Kind::List(items) => open.merges.extend(items),
                    _ => return fail(node.at, "a merge needs a mapping".to_owned()),
                },
                Some(Key { text, at, .. }) => entries.push(Entry { key: text, at, value: node }),
            },
            Kind::Null | Kind::Scalar { .. } => {}
        }
        Ok(())
    }
}

fn merge_into(entries: &mut Vec<Entry>, keys: &mut HashSet<String>, merged: Node) {
    if let Kind::Map(more) = merged.kind {
        for entry in more {
            if keys.insert(entry.key.clone()) {
                entries.push(entry);
            }
        }
    }
}

#[cfg(test)]
mod tests;
