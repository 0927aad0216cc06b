//! Random tokens and identifiers.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use crate::error::PkiError;

const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// A bootstrap token of Kubernetes: `[0-9a-z]{6}.[0-9a-z]{16}`.
pub fn bootstrap_token() -> Result<String, PkiError> {
    Ok(format!("{}.{}", characters(6)?, characters(16)?))
}

/// Whether a text is a well-formed bootstrap token.
#[must_use]
pub fn is_bootstrap_token(text: &str) -> bool {
    let valid = |part: &str, len| part.len() == len && part.bytes().all(|b| ALPHABET.contains(&b));
    text.split_once('.').is_some_and(|(id, secret)| valid(id, 6) && valid(secret, 16))
}

/// 32 random bytes.
pub fn random_key() -> Result<[u8; 32], PkiError> {
    let mut bytes = [0; 32];
    fill(&mut bytes)?;
    Ok(bytes)
}

/// 32 random bytes, standard base64.
pub fn random_secret() -> Result<String, PkiError> {
    Ok(STANDARD.encode(random_key()?))
}

/// 32 random bytes, base64 with the URL alphabet.
pub fn random_cluster_id() -> Result<String, PkiError> {
    Ok(URL_SAFE.encode(random_key()?))
}

fn characters(count: usize) -> Result<String, PkiError> {
    let mut out = String::with_capacity(count);
    let mut bytes = [0; 32];
    while out.len() < count {
        fill(&mut bytes)?;
        // 252 is the largest multiple of 36 that fits a byte: larger bytes would favour the first characters
        let usable = bytes.iter().filter(|b| **b < 252).map(|b| char::from(ALPHABET[usize::from(b % 36)]));
        out.extend(usable.take(count - out.len()));
    }
    Ok(out)
}

fn fill(bytes: &mut [u8]) -> Result<(), PkiError> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| PkiError::Generate { what: "random bytes" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_form_and_differ() {
        let (one, two) = (bootstrap_token().unwrap(), bootstrap_token().unwrap());
        assert!(is_bootstrap_token(&one), "{one}");
        assert_ne!(one, two);
        for bad in ["", "abc.def", "ABCDEF.0123456789abcdef", "abcdef-0123456789abcdef", "abcdef.0123456789abcdef0"] {
            assert!(!is_bootstrap_token(bad), "{bad}");
        }
    }
}
