//! YAML text of rendered documents, and documents out of YAML text. Strings that an older YAML reader would take for a
//! boolean or a number are quoted.

use serde_json::Value;

#[derive(Debug, thiserror::Error)]
pub enum YamlError {
    #[error("writing a document as YAML")]
    Write(#[from] yaml::WriteError),
    #[error("reading YAML documents")]
    Read(#[from] yaml::ReadError),
    #[error("YAML document {index} is not a mapping")]
    NotAMapping { index: usize },
}

/// One document.
///
/// # Errors
/// Only if the serializer fails, which no tree of JSON values is known to cause.
pub fn to_string(document: &Value) -> Result<String, YamlError> {
    Ok(yaml::to_string(document)?)
}

/// All documents of a stream; empty documents are skipped.
///
/// # Errors
/// Text that is not YAML, or a document that is not a mapping.
pub fn documents(text: &str) -> Result<Vec<Value>, YamlError> {
    let all: Vec<Value> = yaml::from_multiple(text)?;
    let mut documents = Vec::with_capacity(all.len());
    for (index, document) in all.into_iter().enumerate() {
        match document {
            Value::Null => {}
            Value::Object(_) => documents.push(document),
            _ => return Err(YamlError::NotAMapping { index }),
        }
    }
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn strings_survive_that_look_like_something_else() {
        let document = json!({
            "a": "yes", "b": "1e3", "c": "0x10", "d": "null", "e": "12:30:45", "f": "- x", "g": "a: b", "h": "",
            "i": "line\nline\n", "j": "#no", "k": "on", "l": 3, "m": true, "n": [], "o": {}, "p": "~", "q": "1_000",
        });
        let text = to_string(&document).unwrap();
        assert_eq!(documents(&text).unwrap(), vec![document], "{text}");
        for line in ["a: \"yes\"", "k: \"on\"", "b: \"1e3\"", "e: \"12:30:45\"", "q: \"1_000\""] {
            assert!(text.lines().any(|found| found.replace('\'', "\"") == line), "{line} in {text}");
        }
    }

    #[test]
    fn empty_documents_are_skipped_and_scalars_refused() {
        let text = "---\nkind: A\n---\n---\n# nothing\n---\nkind: B\n";
        assert_eq!(documents(text).unwrap(), vec![json!({"kind": "A"}), json!({"kind": "B"})]);
        assert!(matches!(documents("kind: A\n---\nword\n"), Err(YamlError::NotAMapping { index: 1 })));
    }
}
