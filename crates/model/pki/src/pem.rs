//! PEM text, and the certificate and key pair of configurations.
//!
//! Parsing skips text outside blocks and headers inside them. Encrypted keys are not supported.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::error::PkiError;

/// One block of PEM text.
#[derive(Clone, PartialEq, Eq)]
pub struct Block {
    pub label: String,
    pub der: Vec<u8>,
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Block").field("label", &self.label).field("len", &self.der.len()).finish()
    }
}

/// Writes one block with 64 characters per line.
#[must_use]
pub fn encode(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut out = String::with_capacity(body.len() + body.len() / 64 + 64);
    out.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// All blocks of a text, in order; empty if there are none.
pub fn decode(text: &str) -> Result<Vec<Block>, PkiError> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|l| l.strip_suffix("-----")) else {
            continue;
        };
        let end = format!("-----END {label}-----");
        let mut body = String::new();
        loop {
            let line = lines.next().ok_or(PkiError::Pem { reason: "a block has no END line" })?;
            if line == end {
                break;
            }
            if line.contains(':') {
                if line.starts_with("Proc-Type") {
                    return Err(PkiError::Pem { reason: "the key is encrypted with a password" });
                }
                continue;
            }
            body.push_str(line);
        }
        let der =
            STANDARD.decode(body.as_bytes()).map_err(|_| PkiError::Pem { reason: "a block is not valid base64" })?;
        blocks.push(Block { label: label.to_owned(), der });
    }
    Ok(blocks)
}

/// A certificate and its key as PEM text; either may be empty. Serialized as `crt` and `key`, base64 of the text.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PemPair {
    #[serde(default, with = "base64_text")]
    pub crt: String,
    #[serde(default, with = "base64_text")]
    pub key: String,
}

impl PemPair {
    #[must_use]
    pub fn new(crt: impl Into<String>, key: impl Into<String>) -> Self {
        Self { crt: crt.into(), key: key.into() }
    }

    /// The same without its key.
    #[must_use]
    pub fn certificate_only(&self) -> Self {
        Self { crt: self.crt.clone(), key: String::new() }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.crt.is_empty() && self.key.is_empty()
    }
}

impl std::fmt::Debug for PemPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = if self.key.is_empty() { "none" } else { "hidden" };
        f.debug_struct("PemPair").field("crt", &self.crt).field("key", &key).finish()
    }
}

/// Serde encoding of PEM text: base64 of the text.
pub mod base64_text {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(text))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        let text = String::deserialize(deserializer)?;
        decode(&text).map_err(D::Error::custom)
    }

    /// Base64 (line breaks allowed) to text.
    pub fn decode(text: &str) -> Result<String, &'static str> {
        let bare: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let bytes = STANDARD.decode(bare).map_err(|_| "not valid base64")?;
        String::from_utf8(bytes).map_err(|_| "not PEM text in base64")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_survive_text_around_them_and_windows_line_ends() {
        let text = format!("# note\r\n{}trailer\n{}", encode("A B", &[1; 100]).replace('\n', "\r\n"), encode("C", b""));
        let blocks = decode(&text).unwrap();
        assert_eq!(blocks.len(), 2);
        assert_eq!((blocks[0].label.as_str(), blocks[0].der.as_slice()), ("A B", &[1u8; 100][..]));
        assert!(blocks[1].der.is_empty());
    }

    #[test]
    fn a_block_without_end_is_refused() {
        let error = decode("-----BEGIN X-----\nAAAA\n").unwrap_err();
        assert!(matches!(error, PkiError::Pem { reason: "a block has no END line" }), "{error:?}");
    }

    #[test]
    fn debug_output_hides_the_key() {
        let pair = PemPair::new("crt text", "key text");
        assert!(!format!("{pair:?}").contains("key text"));
    }
}
