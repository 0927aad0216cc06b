//! Comments for generated documents.
//!
//! `docs.txt` holds them: a line `path = text` explains a field, indented lines below it are an example value. A path has
//! `[]` for the elements of a list and `*` for any key.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use super::CommentStyle;
use yaml::{Comments, to_text_with};

const TEXT: &str = include_str!("docs.txt");

pub(crate) struct Doc {
    pub(crate) text: &'static str,
    pub(crate) example: Vec<&'static str>,
    order: usize,
}

/// All entries by path.
pub(crate) static DOCS: LazyLock<HashMap<&'static str, Doc>> = LazyLock::new(|| {
    let mut docs = HashMap::new();
    let mut current: Option<&'static str> = None;
    for (order, line) in TEXT.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(example) = line.strip_prefix("    ") {
            if let Some(doc) = current.and_then(|path| docs.get_mut(path)) {
                let doc: &mut Doc = doc;
                doc.example.push(example);
            }
        } else if let Some((path, text)) = line.split_once(" = ") {
            current = Some(path);
            docs.insert(path, Doc { text, example: Vec::new(), order });
        }
    }
    docs
});

/// The explanation of a field of a kind, by its generic path.
pub(crate) fn documentation(kind: &str, path: &[&str]) -> Option<&'static str> {
    if kind == crate::shape::ROOT {
        return lookup(path).map(|doc| doc.text);
    }
    let path: Vec<&str> = std::iter::once(kind).chain(path.iter().copied()).collect();
    lookup(&path).map(|doc| doc.text)
}

pub(super) fn write(value: &Value, style: CommentStyle) -> String {
    to_text_with(value, &Table { style })
}

struct Table {
    style: CommentStyle,
}

fn lookup(path: &[&str]) -> Option<&'static Doc> {
    let mut joined = String::new();
    for part in path {
        if *part != "[]" && !joined.is_empty() {
            joined.push('.');
        }
        joined.push_str(part);
    }
    DOCS.get(joined.as_str())
}

impl Comments for Table {
    fn above(&self, path: &[&str], value: &Value) -> Vec<String> {
        let block = match value {
            Value::Object(map) => !map.is_empty(),
            Value::Array(list) => !list.is_empty(),
            Value::String(text) => text.contains('\n'),
            _ => false,
        };
        if !self.style.docs || !block {
            return Vec::new();
        }
        lookup(path).map(|doc| wrap(doc.text)).unwrap_or_default()
    }

    fn beside(&self, path: &[&str]) -> Option<String> {
        self.style.docs.then(|| lookup(path)).flatten().map(|doc| doc.text.to_owned())
    }

    fn below(&self, path: &[&str], value: &Value) -> Vec<String> {
        if !self.style.examples {
            return Vec::new();
        }
        let prefix = lookup_prefix(path);
        let mut missing: Vec<(&str, &Doc)> = DOCS
            .iter()
            .filter_map(|(name, doc)| {
                let field = name.strip_prefix(prefix.as_str())?;
                let direct = !field.is_empty() && !field.contains(['.', '[']);
                (direct && !doc.example.is_empty() && value.get(field).is_none()).then_some((field, doc))
            })
            .collect();
        missing.sort_by_key(|(_, doc)| doc.order);
        let mut lines = Vec::new();
        for (index, (field, doc)) in missing.into_iter().enumerate() {
            if index > 0 {
                lines.push(String::new());
            }
            if self.style.docs {
                lines.extend(wrap(doc.text).into_iter().map(|line| format!("# {line}")));
            }
            if let [scalar] = doc.example.as_slice()
                && !scalar.starts_with("- ")
                && !scalar.contains(": ")
                && !scalar.ends_with(':')
            {
                lines.push(format!("{field}: {scalar}"));
            } else {
                lines.push(format!("{field}:"));
                lines.extend(doc.example.iter().map(|line| format!("    {line}")));
            }
        }
        lines
    }
}

fn lookup_prefix(path: &[&str]) -> String {
    let mut prefix = String::new();
    for part in path {
        if *part != "[]" && !prefix.is_empty() {
            prefix.push('.');
        }
        prefix.push_str(part);
    }
    if !prefix.is_empty() {
        prefix.push('.');
    }
    prefix
}

const WIDTH: usize = 100;

fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        if !lines[last].is_empty() && lines[last].len() + 1 + word.len() > WIDTH {
            lines.push(word.to_owned());
        } else {
            if !lines[last].is_empty() {
                lines[last].push(' ');
            }
            lines[last].push_str(word);
        }
    }
    lines
}
