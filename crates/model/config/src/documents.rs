//! The documents of a configuration with the text that they came from.

use std::sync::Arc;

use yaml::{FieldPath, Node};

use crate::decode::{self, Decoded, Judge};
use crate::document::Document;
use crate::error::{ConfigError, ConfigErrors};
use crate::legacy::Use;
use crate::shape;
use crate::v1alpha1::Config;

/// A machine's configuration: its documents, in order, and the text they came from. Cheap to clone; equal when the texts
/// are equal.
#[derive(Clone)]
pub struct Documents {
    inner: Arc<Inner>,
}

struct Inner {
    decoded: Decoded,
    judged: Judge,
    raw: Vec<u8>,
}

impl Documents {
    /// Decodes a stream of documents. Every field is checked for its type and its form; what fields mean together is
    /// checked by [`validate`](crate::validate).
    ///
    /// # Errors
    /// All that could be found at once, each with document, path and line.
    pub fn from_yaml(raw: &[u8]) -> Result<Self, ConfigErrors> {
        Self::decode(raw, Judge::Forms)
    }

    /// Decodes a stream of documents whose values are not final: they may be patched. Only names and types of fields are
    /// checked; [`validate`](crate::validate) then checks the form of values, too.
    ///
    /// # Errors
    /// All that could be found at once, each with document, path and line.
    pub fn unjudged(raw: &[u8]) -> Result<Self, ConfigErrors> {
        Self::decode(raw, Judge::Types)
    }

    fn decode(raw: &[u8], judged: Judge) -> Result<Self, ConfigErrors> {
        let decoded = decode::decode(raw, judged)?;
        Ok(Self { inner: Arc::new(Inner { decoded, judged, raw: raw.to_vec() }) })
    }

    /// A configuration from documents; its text is what [`to_yaml`](Self::to_yaml) writes.
    ///
    /// # Errors
    /// As [`from_yaml`](Self::from_yaml): the documents are checked in the same way.
    pub fn new(documents: &[Document]) -> Result<Self, ConfigErrors> {
        Self::from_yaml(write(documents).as_bytes())
    }

    /// The text as it was given.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.inner.raw
    }

    #[must_use]
    pub fn documents(&self) -> &[Document] {
        &self.inner.decoded.documents
    }

    /// The root document. A configuration without it is not complete: the machine waits for the rest.
    #[must_use]
    pub fn v1alpha1(&self) -> Option<&Config> {
        self.documents().iter().find_map(Document::as_root)
    }

    /// The documents written anew, without comments, in their order.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        write(self.documents())
    }

    /// The documents as ordered trees, as they were written: with empty values, old names and in their order. Scalars
    /// have the type of their field.
    #[must_use]
    pub fn values(&self) -> Vec<serde_json::Value> {
        let decoded = &self.inner.decoded;
        let documents = decoded.documents.iter().zip(&decoded.nodes).enumerate();
        documents
            .map(|(index, (document, node))| {
                shape::value_of(decoded.written.get(&index).unwrap_or(node), shape::of(document.kind()))
            })
            .collect()
    }

    /// The trees that the documents were decoded from, in their order.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.inner.decoded.nodes
    }

    /// Old spellings that were used, by index of the document.
    pub(crate) fn old_spellings(&self) -> &[(usize, Use)] {
        &self.inner.decoded.uses
    }

    /// The values that do not have the form of their field; none where they were checked already.
    #[must_use]
    pub fn malformed(&self) -> Vec<ConfigError> {
        if self.inner.judged == Judge::Forms {
            return Vec::new();
        }
        let documents = self.documents().iter().zip(self.nodes()).enumerate();
        documents.flat_map(|(index, (document, node))| decode::forms(index, node, document.kind())).collect()
    }

    /// An error about a field of a document, with its place in the text.
    pub(crate) fn error_at(&self, document: usize, path: &FieldPath, message: String) -> ConfigError {
        let at = self.nodes().get(document).map(|node| node.locate(&path.0)).unwrap_or_default();
        ConfigError {
            document,
            kind: self.documents().get(document).map(|d| d.kind().to_owned()).unwrap_or_default(),
            path: path.to_string(),
            line: at.line,
            column: at.column,
            message,
            hint: None,
        }
    }
}

fn write(documents: &[Document]) -> String {
    let texts: Vec<_> = documents.iter().map(|document| yaml::to_text(&document.to_value())).collect();
    texts.join("---\n")
}

impl PartialEq for Documents {
    fn eq(&self, other: &Self) -> bool {
        self.inner.raw == other.inner.raw
    }
}

impl Eq for Documents {}

impl std::fmt::Debug for Documents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.documents().iter().map(Document::kind)).finish()
    }
}
