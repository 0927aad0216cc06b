//! The form of values: which field holds an address, a URL, a duration, one of a few words.
//!
//! The table is data: a field's path, with `[]` for any list element and `*` for any key, and the form of its scalar.
//! Only the form is checked; the meaning of an address in its place is not known here.

use std::net::IpAddr;

use yaml::{FieldPath, Kind, Node, Position};

mod forms;
mod table;

use forms::Form;

pub(crate) struct Issue {
    pub(crate) path: FieldPath,
    pub(crate) at: Position,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// More issues than anybody reads; each costs a search for its place.
const MAX_ISSUES: usize = 100;

/// Checks the scalars of a document that have a form, until 100 do not have theirs. Empty values pass: they count as
/// absent.
pub(crate) fn check(node: &Node, kind: &str) -> Vec<Issue> {
    let mut issues = Vec::new();
    walk(node, &FieldPath::default(), &mut Vec::new(), kind, &mut issues);
    issues
}

fn walk<'n>(node: &'n Node, path: &FieldPath, generic: &mut Vec<&'n str>, kind: &str, issues: &mut Vec<Issue>) {
    if issues.len() >= MAX_ISSUES {
        return;
    }
    match &node.kind {
        Kind::Null => {}
        Kind::Map(entries) => {
            for entry in entries {
                generic.push(&entry.key);
                walk(&entry.value, &path.key(&entry.key), generic, kind, issues);
                generic.pop();
            }
        }
        Kind::List(items) => {
            generic.push("[]");
            for (index, item) in items.iter().enumerate() {
                walk(item, &path.index(index), generic, kind, issues);
            }
            generic.pop();
        }
        Kind::Scalar { text, .. } => {
            let Some(form) = table::form(kind, generic) else { return };
            if text.is_empty() {
                return;
            }
            if let Err((message, hint)) = form.check(text) {
                issues.push(Issue { path: path.clone(), at: node.at, message, hint });
            }
        }
    }
}

/// An address, with or without brackets.
fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

/// Whether a text can be a cluster's endpoint; else why not, with an example.
pub(crate) fn endpoint(text: &str) -> Result<(), String> {
    table::ENDPOINT.check(text).map_err(|(message, hint)| match hint {
        Some(hint) => format!("{message} ({hint})"),
        None => message,
    })
}

/// What is known of the values of a field, for those who describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    Words(&'static [&'static str]),
    Schemes(&'static [&'static str]),
    Range(u64, u64),
    Duration,
}

/// The hint about a field of a kind, by its generic path.
pub(crate) fn hint(kind: &str, path: &[&str]) -> Option<Hint> {
    match table::form(kind, path)? {
        Form::OneOf(words) => Some(Hint::Words(words)),
        Form::Url { schemes, .. } => Some(Hint::Schemes(schemes)),
        Form::Range(low, high) => Some(Hint::Range(low, high)),
        Form::Duration => Some(Hint::Duration),
        _ => None,
    }
}
