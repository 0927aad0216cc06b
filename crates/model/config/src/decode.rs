//! Text to documents.
//!
//! A stream is parsed into trees, each tree is matched with its kind and decoded, and then the form of each value is
//! checked (`formats`). One run finds as much as it can: a field that does not fit is noted, taken out, and the rest is
//! tried again.

use std::collections::HashMap;

use crate::document::Document;
use crate::error::{ConfigError, ConfigErrors};
use crate::formats;
use crate::legacy::{self, Use};
use crate::shape;
use yaml::{DecodeError, FieldPath, Kind, Node};

/// How many errors of one document are worth telling.
const MAX_ERRORS: usize = 20;
/// How many errors of all documents are.
const MAX_ALL_ERRORS: usize = 100;

/// How much of the documents is judged when they are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judge {
    /// Names and types of fields, and the form of their values.
    Forms,
    /// Names and types: a later patch may put a value right.
    Types,
}

/// Decoded documents with their trees.
pub(crate) struct Decoded {
    pub(crate) documents: Vec<Document>,
    /// In today's spelling.
    pub(crate) nodes: Vec<Node>,
    /// Documents by index that were written in an old spelling, as they were written.
    pub(crate) written: HashMap<usize, Node>,
    /// Old spellings by index of the document.
    pub(crate) uses: Vec<(usize, Use)>,
}

pub(crate) fn decode(raw: &[u8], judge: Judge) -> Result<Decoded, ConfigErrors> {
    let text = std::str::from_utf8(raw).map_err(|error| {
        let before = &raw[..error.valid_up_to()];
        let line = 1 + before.iter().filter(|b| **b == b'\n').count();
        plain(0, line, 1, "the text is not UTF-8".to_owned())
    })?;
    let mut decoded = Decoded { documents: Vec::new(), nodes: nodes(text)?, written: HashMap::new(), uses: Vec::new() };
    let mut errors = Vec::new();
    for (index, node) in decoded.nodes.iter_mut().enumerate() {
        if node.get("kind").is_none()
            && let Some((modern, uses)) = legacy::modern(node)
        {
            decoded.written.insert(index, std::mem::replace(node, modern));
            decoded.uses.extend(uses.into_iter().map(|one| (index, one)));
        }
        match document(index, node, judge) {
            Ok(document) => decoded.documents.push(document),
            Err(more) => errors.extend(more),
        }
        if errors.len() >= MAX_ALL_ERRORS {
            break;
        }
    }
    if errors.is_empty() {
        errors.extend(duplicates(&decoded.documents, &decoded.nodes));
    }
    if errors.is_empty() { Ok(decoded) } else { Err(ConfigErrors(errors)) }
}

/// Any YAML text as trees, one for each document that is not empty.
fn nodes(text: &str) -> Result<Vec<Node>, ConfigErrors> {
    yaml::parse(text).map_err(|error| {
        let message = format!("not valid YAML: {}", error.message);
        plain(error.document, error.at.line, error.at.column, message).into()
    })
}

/// Any YAML text as ordered values, one for each document that is not empty.
pub(crate) fn values(text: &str) -> Result<Vec<serde_json::Value>, ConfigErrors> {
    Ok(nodes(text)?.iter().map(Node::to_value).collect())
}

fn plain(document: usize, line: usize, column: usize, message: String) -> ConfigError {
    ConfigError { document, kind: String::new(), path: String::new(), line, column, message, hint: None }
}

fn document(index: usize, node: &Node, judge: Judge) -> Result<Document, Vec<ConfigError>> {
    let at = |message: String, hint: Option<String>, node: &Node| {
        let mut error = plain(index, node.at.line, node.at.column, message);
        error.hint = hint;
        vec![error]
    };
    if !matches!(node.kind, Kind::Map(_)) {
        return Err(at(format!("expected a mapping, found {}", node.describe()), None, node));
    }
    let Some(kind) = node.get("kind") else {
        if let Some(version) = node.get("version")
            && !matches!(version.as_str(), Some("v1alpha1" | ""))
            && version.kind != Kind::Null
        {
            return Err(at(format!("unknown version {}", version.describe()), Some("use v1alpha1".into()), version));
        }
        return typed(index, node, shape::ROOT, judge).map(|config| Document::V1alpha1(Box::new(config)));
    };
    let name = kind.as_str().unwrap_or_default();
    let known = shape::of(name).is_some() && name != shape::ROOT;
    if known && node.get("apiVersion").and_then(Node::as_str) != Some("v1alpha1") {
        let here = node.get("apiVersion").unwrap_or(kind);
        return Err(at(format!("{name} needs apiVersion v1alpha1"), None, here));
    }
    match name {
        "NetworkDefaultActionConfig" => typed(index, node, name, judge).map(Document::NetworkDefaultAction),
        "NetworkRuleConfig" => typed(index, node, name, judge).map(Document::NetworkRule),
        "ExtensionServiceConfig" => typed(index, node, name, judge).map(Document::ExtensionService),
        "EventSinkConfig" => typed(index, node, name, judge).map(Document::EventSink),
        "KmsgLogConfig" => typed(index, node, name, judge).map(Document::KmsgLog),
        "WatchdogTimerConfig" => typed(index, node, name, judge).map(Document::WatchdogTimer),
        "UpgradeTrialConfig" => typed(index, node, name, judge).map(Document::UpgradeTrial),
        "SideroLinkConfig" => typed(index, node, name, judge).map(Document::SideroLink),
        _ => {
            let names: Vec<_> =
                shape::all().iter().map(|(name, _)| *name).filter(|name| *name != shape::ROOT).collect();
            let hint = format!("known kinds: {}", names.join(", "));
            Err(at(format!("unknown kind {}", kind.describe()), Some(hint), kind))
        }
    }
}

/// Decodes one document; on an error the offending value is taken out and the rest is tried, to find more.
fn typed<T: serde::de::DeserializeOwned>(
    index: usize,
    node: &Node,
    kind: &str,
    judge: Judge,
) -> Result<T, Vec<ConfigError>> {
    let mut errors = if judge == Judge::Forms { forms(index, node, kind) } else { Vec::new() };
    match yaml::from_node(node) {
        Ok(document) if errors.is_empty() => return Ok(document),
        Ok(_) => {
            errors.truncate(MAX_ERRORS);
            return Err(errors);
        }
        Err(error) => errors.push(located(index, kind, node, &error)),
    }
    let mut rest = node.clone();
    while errors.len() < MAX_ERRORS {
        let Err(error) = yaml::from_node::<T>(&rest) else { break };
        let located = located(index, kind, node, &error);
        if errors.iter().all(|e| e.path != located.path) {
            errors.push(located);
        }
        let Some((path, _)) = &error.place else { break };
        if !rest.blank(&path.0, error.unknown) {
            break;
        }
    }
    errors.sort_by_key(|e| (e.line, e.column));
    errors.truncate(MAX_ERRORS);
    Err(errors)
}

/// The values of a document that do not have the form of their field.
pub(crate) fn forms(index: usize, node: &Node, kind: &str) -> Vec<ConfigError> {
    let issues = formats::check(node, kind).into_iter();
    let error = |issue: formats::Issue| ConfigError {
        document: index,
        kind: kind.to_owned(),
        path: issue.path.to_string(),
        line: issue.at.line,
        column: issue.at.column,
        message: issue.message,
        hint: issue.hint,
    };
    issues.map(error).collect()
}

fn located(index: usize, kind: &str, node: &Node, error: &DecodeError) -> ConfigError {
    let (path, at) = error.place.clone().unwrap_or_else(|| (FieldPath::default(), node.at));
    ConfigError {
        document: index,
        kind: kind.to_owned(),
        path: path.to_string(),
        line: at.line,
        column: at.column,
        message: error.message.clone(),
        hint: error.hint.clone(),
    }
}

/// A document may be there once for its kind and name.
fn duplicates(documents: &[Document], nodes: &[Node]) -> Vec<ConfigError> {
    let mut known: HashMap<(&str, Option<&str>), usize> = HashMap::new();
    let mut errors = Vec::new();
    for (index, document) in documents.iter().enumerate() {
        let first = *known.entry((document.kind(), document.name())).or_insert(index);
        if first == index {
            continue;
        }
        let name = document.name().map(|n| format!(" named {n:?}")).unwrap_or_default();
        let at = nodes[index].at;
        let mut error = plain(
            index,
            at.line,
            at.column,
            format!("a second document of this kind{name}; the first is document {}", first + 1),
        );
        document.kind().clone_into(&mut error.kind);
        errors.push(error);
        if errors.len() >= MAX_ALL_ERRORS {
            break;
        }
    }
    errors
}

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod schema_tests;
#[cfg(test)]
mod tests;
