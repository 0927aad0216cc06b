//! Text to trees, one for each document of a stream.
//!
//! Bounds: 64 levels, and 200,000 values after aliases were followed, so that a small text cannot become a large tree.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle};

use super::node::{Entry, Kind, Node, Position};

const MAX_DEPTH: usize = 64;
const MAX_NODES: usize = 200_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ParseError {
    /// Which document, from zero.
    pub(crate) document: usize,
    pub(crate) at: Position,
    pub(crate) message: String,
}

/// All documents of a text, in order; empty ones are left out.
pub(crate) fn parse(text: &str) -> Result<Vec<Node>, ParseError> {
    let mut builder = Builder::default();
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
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

/// A list or mapping that has begun; `key` is the key that waits for its value.
struct Open {
    node: Node,
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
                // a null that is a key keeps its place as the empty text
                self.add(Node { kind, at }, anchor, 1)
            }
            Event::SequenceStart(_, anchor, _) => self.open(Kind::List(Vec::new()), anchor, at),
            Event::MappingStart(_, anchor, _) => self.open(Kind::Map(Vec::new()), anchor, at),
            Event::SequenceEnd | Event::MappingEnd => self.close(at),
            Event::Alias(id) => {
                let Some((node, size)) = self.anchors.get(&id).cloned() else {
                    return Err(self.error(at, "an alias refers to a value that contains it"));
                };
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
        self.open.push(Open { node: Node { kind, at }, anchor, key: None, merges: Vec::new() });
        Ok(())
    }

    fn close(&mut self, at: Position) -> Result<(), ParseError> {
        let Some(mut open) = self.open.pop() else { return Err(self.error(at, "unexpected end of a value")) };
        if let Kind::Map(entries) = &mut open.node.kind {
            for merged in open.merges {
                merge_into(entries, merged);
            }
        }
        self.add(open.node, open.anchor, 1)
    }

    fn add(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), ParseError> {
        self.nodes += size;
        if self.nodes > MAX_NODES {
            return Err(self.error(node.at, format!("more than {MAX_NODES} values")));
        }
        if anchor != 0 {
            let size = count(&node);
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
        match &mut open.node.kind {
            Kind::List(items) => items.push(node),
            Kind::Map(entries) => match open.key.take() {
                None => match node.kind {
                    Kind::Scalar { text, plain } => {
                        let merge = plain && text == "<<";
                        if !merge && entries.iter().any(|e| e.key == text) {
                            return fail(node.at, format!("key {text:?} is there twice"));
                        }
                        open.key = Some(Key { text, at: node.at, merge });
                    }
                    Kind::Null => open.key = Some(Key { text: String::new(), at: node.at, merge: false }),
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

fn merge_into(entries: &mut Vec<Entry>, merged: Node) {
    if let Kind::Map(more) = merged.kind {
        for entry in more {
            if !entries.iter().any(|e| e.key == entry.key) {
                entries.push(entry);
            }
        }
    }
}

fn count(node: &Node) -> usize {
    1 + match &node.kind {
        Kind::List(items) => items.iter().map(count).sum(),
        Kind::Map(entries) => entries.iter().map(|e| count(&e.value)).sum(),
        Kind::Null | Kind::Scalar { .. } => 0,
    }
}
