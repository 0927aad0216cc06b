//! Which fields of a configuration take effect, and warnings about those that do not yet.
//!
//! The table covers every field of every document. A field is either read by somebody, who is named, or has no effect
//! yet and says what it waits for. Tests hold the table to be complete and the second list to shrink only.

use crate::documents::Documents;
use crate::error::ConfigError;
use yaml::{FieldPath, Kind, Node};

mod table;

use table::FIELDS;

/// The most warnings of one configuration: a configuration of many documents must not make an answer of any size.
const MAX_WARNINGS: usize = 100;

/// The effect of a field in this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// It takes effect; named is the controller (or the crate) that reads it.
    ReadBy(&'static str),
    /// It has no effect yet.
    Pending {
        /// The value that equals the behaviour without the field, so that no warning is needed; empty if there is none.
        default: &'static str,
        /// The missing feature.
        waits_for: &'static str,
    },
    /// It will have none.
    Obsolete {
        /// As above.
        default: &'static str,
        /// What is always so.
        because: &'static str,
    },
}

/// One line of the table: a field with all fields below it, unless a longer path says otherwise.
#[derive(Clone, Copy, Debug)]
struct Field {
    kind: &'static str,
    /// Dotted, with `[]` for the elements of a list and `*` for any key; empty for the whole document.
    path: &'static str,
    effect: Effect,
}

/// A warning for each field that is set and has no effect yet, in the order of the documents: at most one a line of the
/// table and list element, and at most 100.
#[must_use]
pub(crate) fn warnings(documents: &Documents) -> Vec<ConfigError> {
    let mut found = Vec::new();
    for (index, (document, node)) in documents.documents().iter().zip(documents.nodes()).enumerate() {
        let fields: Vec<&Field> = FIELDS.iter().filter(|field| field.kind == document.kind()).collect();
        let mut walk = Walk { documents, index, found: &mut found };
        walk.node(node, &FieldPath::default(), "", &fields);
    }
    if found.len() > MAX_WARNINGS {
        let more = found.len() - MAX_WARNINGS + 1;
        found.truncate(MAX_WARNINGS - 1);
        found.extend(found.last().cloned().map(|last| ConfigError {
            path: String::new(),
            message: format!("{more} more fields have no effect yet"),
            ..last
        }));
    }
    found
}

struct Walk<'a> {
    documents: &'a Documents,
    index: usize,
    found: &'a mut Vec<ConfigError>,
}

impl Walk<'_> {
    /// `fields` are the table's lines for this path and the paths below it.
    fn node(&mut self, node: &Node, path: &FieldPath, generic: &str, fields: &[&Field]) {
        // One more than the maximum suffices to know that there are more; the count then covers the visited ones.
        if self.found.len() > 2 * MAX_WARNINGS {
            return;
        }
        let here = fields.iter().find(|field| field.path == generic);
        let without = match here.map(|field| field.effect) {
            Some(Effect::Pending { default, waits_for }) => {
                Some((default, format!("has no effect yet: waits for {waits_for}")))
            }
            Some(Effect::Obsolete { default, because }) => Some((default, format!("has no effect: {because}"))),
            Some(Effect::ReadBy(_)) | None => None,
        };
        if let Some((default, message)) = without {
            if !is_absent(node) && !is_value(node, default) {
                self.found.push(self.documents.error_at(self.index, path, message));
            }
            return;
        }
        let below: Vec<&Field> = fields.iter().filter(|field| is_below(field.path, generic)).copied().collect();
        if below.is_empty() {
            return;
        }
        match &node.kind {
            Kind::Map(entries) => {
                for entry in entries {
                    let key =
                        |name: &str| if generic.is_empty() { name.to_owned() } else { format!("{generic}.{name}") };
                    let any = key("*");
                    let wild = below.iter().any(|field| field.path == any || is_below(field.path, &any));
                    let generic = if wild { any } else { key(&entry.key) };
                    self.node(&entry.value, &path.key(&entry.key), &generic, &below);
                }
            }
            Kind::List(items) => {
                let generic = format!("{generic}[]");
                for (index, item) in items.iter().enumerate() {
                    self.node(item, &path.index(index), &generic, &below);
                }
            }
            Kind::Null | Kind::Scalar { .. } => {}
        }
    }
}

/// Whether `path` leads to a place below `above`.
fn is_below(path: &str, above: &str) -> bool {
    if above.is_empty() {
        return !path.is_empty();
    }
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with(['.', '[']))
}

/// Empty values count as absent, as they do everywhere.
fn is_absent(node: &Node) -> bool {
    match &node.kind {
        Kind::Null => true,
        Kind::Scalar { text, .. } => text.is_empty(),
        Kind::List(items) => items.is_empty(),
        Kind::Map(entries) => entries.is_empty(),
    }
}

fn is_value(node: &Node, value: &str) -> bool {
    let Kind::Scalar { text, .. } = &node.kind else { return false };
    let boolean = yaml::plain::boolean;
    !value.is_empty() && (text == value || (boolean(value).is_some() && boolean(text) == boolean(value)))
}

#[cfg(test)]
mod tests;
