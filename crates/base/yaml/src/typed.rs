//! Typed values through the library's own parser and writer, for trusted files.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Failure to parse a text. It names the position and quotes no line of the text, which may hold secrets.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ReadError(Box<serde_saphyr::Error>);

/// Failure to write a value.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct WriteError(Box<serde_saphyr::ser::Error>);

/// The one document of a text. Only `true` and `false` are booleans: a host may be named `yes`.
///
/// # Errors
/// [`ReadError`] for text that is not YAML or does not fit the type.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, ReadError> {
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| ReadError(Box::new(error)))
}

/// All documents of a text, in order. A number with a leading zero is octal, as readers of Kubernetes manifests take it.
///
/// # Errors
/// [`ReadError`] for text that is not YAML or has a document that does not fit the type.
pub fn from_multiple<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, ReadError> {
    let options = serde_saphyr::options! { with_snippet: false, legacy_octal_numbers: true };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| ReadError(Box::new(error)))
}

/// One document with two spaces a level. Strings that an older reader would take for something else are quoted; long words
/// stay on the line of their key.
///
/// # Errors
/// [`WriteError`] for values that have no form in YAML, such as a mapping with lists for keys.
pub fn to_string<T: Serialize>(value: &T) -> Result<String, WriteError> {
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    serde_saphyr::to_string_with_options(value, options).map_err(|error| WriteError(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn modes_of_files_in_manifests_are_octal() {
        let read = from_multiple::<Value>("defaultMode: 0400\n---\n[0o17, 0, 10, '010']\n").unwrap();
        assert_eq!(read, [json!({ "defaultMode": 256 }), json!([15, 0, 10, "010"])]);
    }
}
