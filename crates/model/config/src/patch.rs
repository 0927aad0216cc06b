//! Patches of configurations: strategic merges and JSON patches (RFC 6902), in YAML or JSON.
//!
//! A text that is a list of operations is a JSON patch, anything else a strategic merge. Reading `@file` is the caller's
//! work.

mod merge;

use std::borrow::Cow;

use json_patch::{AddOperation, PatchOperation};
use serde_json::Value;

use crate::documents::Documents;
use crate::error::ConfigErrors;

/// A patch that was read: names and types of its fields are right. Its values are not judged, since a later patch may
/// put them right.
#[derive(Clone, Debug)]
pub enum Patch {
    /// Documents that are merged into those of the same kind and name, or added.
    Strategic(Documents),
    /// Operations on the only document.
    Json(json_patch::Patch),
}

/// Why a configuration was not patched.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    #[error("reading the patch")]
    Parse(#[source] ConfigErrors),
    #[error("operation {index} of the JSON patch is not valid")]
    Operation {
        /// From one.
        index: usize,
        #[source]
        error: serde_json::Error,
    },
    #[error("a JSON patch works on a single document, and this configuration has {0}: use a strategic merge patch")]
    SeveralDocuments(usize),
    #[error("applying operation {index} of the JSON patch ({path})")]
    Apply {
        /// From one.
        index: usize,
        path: String,
        #[source]
        error: json_patch::PatchErrorKind,
    },
    #[error("operation {index} of the JSON patch makes the document larger than a configuration may be")]
    TooLarge {
        /// From one.
        index: usize,
    },
    #[error("the patched configuration is not valid")]
    Result(#[source] ConfigErrors),
}

impl Patch {
    /// Reads a patch and finds out which kind it is. An empty text, one of comments or of empty documents, is a patch that
    /// changes nothing: templates leave such files.
    ///
    /// # Errors
    /// When the text is neither kind, or a field of a strategic merge does not exist or has another type.
    pub fn parse(text: &str) -> Result<Self, PatchError> {
        let mut values = crate::decode::values(text).map_err(PatchError::Parse)?;
        match values.as_mut_slice() {
            [Value::Array(operations)] => operations
                .drain(..)
                .enumerate()
                .map(|(index, value)| {
                    operation(value).map_err(|error| PatchError::Operation { index: index + 1, error })
                })
                .collect::<Result<_, _>>()
                .map(|operations| Self::Json(json_patch::Patch(operations))),
            _ => Documents::unjudged(text.as_bytes()).map(Self::Strategic).map_err(PatchError::Parse),
        }
    }

    /// Whether it has nothing to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Strategic(documents) => documents.documents().is_empty(),
            Self::Json(patch) => patch.0.is_empty(),
        }
    }
}

/// Applies patches in order. The result is decoded anew, so that it holds no field that a configuration may not have; its
/// values are for [`validate`](crate::validate) to judge. Comments of the original are lost unless there was nothing to
/// do.
///
/// # Errors
/// When a patch does not apply, or the result has a field that does not exist or is of another type.
pub fn apply(base: &Documents, patches: &[Patch]) -> Result<Documents, PatchError> {
    if patches.iter().all(Patch::is_empty) {
        return Ok(base.clone());
    }
    let mut values = base.values();
    for patch in patches {
        match patch {
            Patch::Strategic(documents) => merge::documents(&mut values, documents),
            Patch::Json(patch) => json(&mut values, patch)?,
        }
    }
    let texts: Vec<_> = values.iter().map(yaml::to_text).collect();
    Documents::unjudged(texts.join("---\n").as_bytes()).map_err(PatchError::Result)
}

fn operation(value: Value) -> Result<PatchOperation, serde_json::Error> {
    if value.is_object() {
        serde_json::from_value(value)
    } else {
        Err(serde::de::Error::custom("expected a mapping with op and path"))
    }
}

fn json(values: &mut [Value], patch: &json_patch::Patch) -> Result<(), PatchError> {
    if patch.0.is_empty() {
        return Ok(());
    }
    let [document] = values else { return Err(PatchError::SeveralDocuments(values.len())) };
    for (index, operation) in patch.0.iter().enumerate() {
        let operation = set_absent(document, operation);
        json_patch::patch(document, std::slice::from_ref(&*operation)).map_err(|error| PatchError::Apply {
            index: index + 1,
            path: error.path.to_string(),
            error: error.kind,
        })?;
        // A `copy` doubles a document, and a path of many parts deepens it.
        if !is_readable(document) {
            return Err(PatchError::TooLarge { index: index + 1 });
        }
    }
    Ok(())
}

/// Whether a document has no more values, and none deeper, than one that is read.
fn is_readable(document: &Value) -> bool {
    let mut pending = vec![(document, 0)];
    let mut seen = 0;
    while let Some((value, depth)) = pending.pop() {
        seen += 1;
        if seen > yaml::MAX_NODES {
            return false;
        }
        match value {
            Value::Array(_) | Value::Object(_) if depth >= yaml::MAX_DEPTH => return false,
            Value::Array(items) => pending.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(members) => pending.extend(members.values().map(|member| (member, depth + 1))),
            _ => {}
        }
    }
    true
}

/// A `replace` of a member that an existing object does not have yet is an `add`, where RFC 6902 has an error: patches for Talos
/// 1.7 are written so.
fn set_absent<'o>(document: &Value, operation: &'o PatchOperation) -> Cow<'o, PatchOperation> {
    if let PatchOperation::Replace(replace) = operation
        && document.pointer(replace.path.as_str()).is_none()
        && let Some((parent, _)) = replace.path.as_str().rsplit_once('/')
        && document.pointer(parent).is_some_and(Value::is_object)
    {
        let add = AddOperation { path: replace.path.clone(), value: replace.value.clone() };
        return Cow::Owned(PatchOperation::Add(add));
    }
    Cow::Borrowed(operation)
}

#[cfg(test)]
mod tests;
