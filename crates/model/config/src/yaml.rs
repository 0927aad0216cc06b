//! YAML: text to a tree that remembers where each value stood, the tree to typed values, and ordered values to text.
//!
//! The tree is read the way that existing configurations were always read: `yes` and `0644` mean something where a
//! boolean or a number is asked for, `~` is an empty value of any type, and any plain scalar may be a string. Nothing
//! here knows the documents; that is the work of [`crate::decode`].

mod de;
mod emit;
mod node;
mod parse;

pub(crate) use de::{DecodeError, from_node};
pub use emit::to_text;
pub(crate) use emit::{Comments, to_text_with};
pub use node::Position;
pub(crate) use node::{FieldPath, Kind, Node};
pub(crate) use parse::parse;

use crate::error::{ConfigError, ConfigErrors};

/// Any YAML text as ordered values, one for each document that is not empty.
///
/// # Errors
/// One error, with the line, when the text is not YAML.
pub fn to_values(text: &str) -> Result<Vec<serde_json::Value>, ConfigErrors> {
    Ok(nodes(text)?.iter().map(Node::to_value).collect())
}

pub(crate) fn nodes(text: &str) -> Result<Vec<Node>, ConfigErrors> {
    parse(text).map_err(|error| {
        ConfigErrors::from(ConfigError {
            document: error.document,
            kind: String::new(),
            path: String::new(),
            line: error.at.line,
            column: error.at.column,
            message: format!("not valid YAML: {}", error.message),
            hint: None,
        })
    })
}
