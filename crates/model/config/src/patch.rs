//! Patches of configurations: strategic merges and JSON patches (RFC 6902), in YAML or JSON.
//!
//! A text that is a list of operations is a JSON patch, anything else a strategic merge. Reading `@file` is the caller's
//! work.

mod merge;

use serde_json::Value;

use crate::documents::Documents;
use crate::error::ConfigErrors;

/// A patch that was read and checked.
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
    #[error("the patch is empty")]
    Empty,
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
    #[error("the patched configuration is not valid")]
    Result(#[source] ConfigErrors),
}

impl Patch {
    /// Reads a patch and finds out which kind it is.
    ///
    /// # Errors
    /// When the text is neither; fields of a strategic merge are checked as those of a configuration are.
    pub fn parse(text: &str) -> Result<Self, PatchError> {
        let mut values = crate::decode::values(text).map_err(PatchError::Parse)?;
        match values.as_mut_slice() {
            [] => Err(PatchError::Empty),
            [Value::Array(operations)] => operations
                .drain(..)
                .enumerate()
                .map(|(index, value)| {
                    serde_json::from_value(value).map_err(|error| PatchError::Operation { index: index + 1, error })
                })
                .collect::<Result<_, _>>()
                .map(|operations| Self::Json(json_patch::Patch(operations))),
            _ => Documents::from_yaml(text.as_bytes()).map(Self::Strategic).map_err(PatchError::Parse),
        }
    }
}

/// Applies patches in order. The result is decoded anew, so that it holds no field that a configuration may not have;
/// comments of the original are lost unless there was nothing to do.
///
/// # Errors
/// When a patch does not apply, or the result is invalid.
pub fn apply(base: &Documents, patches: &[Patch]) -> Result<Documents, PatchError> {
    if patches.is_empty() {
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
    Documents::from_yaml(texts.join("---\n").as_bytes()).map_err(PatchError::Result)
}

fn json(values: &mut [Value], patch: &json_patch::Patch) -> Result<(), PatchError> {
    let [document] = values else { return Err(PatchError::SeveralDocuments(values.len())) };
    json_patch::patch(document, &patch.0).map_err(|error| PatchError::Apply {
        index: error.operation + 1,
        path: error.path.to_string(),
        error: error.kind,
    })
}

#[cfg(test)]
mod tests;
