//! A value that is not leaked by printing.
//!
//! It prevents accidents in logs and errors; it does not protect against a process that reads memory.

use std::fmt;

/// Wraps a secret: no `Display`, no serde, and `Debug` prints a placeholder so that structs holding one can derive it.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps `value`.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Every call deserves review.
    pub const fn expose(&self) -> &T {
        &self.0
    }

    /// The value itself, by value.
    pub fn into_exposed(self) -> T {
        self.0
    }
}

impl<T: AsRef<[u8]>> Secret<T> {
    /// Compares with `other` in a time that depends on the lengths only.
    pub fn matches(&self, other: impl AsRef<[u8]>) -> bool {
        let (a, b) = (self.0.as_ref(), other.as_ref());
        a.len() == b.len() && std::hint::black_box(a.iter().zip(b).fold(0u8, |acc, (x, y)| acc | (x ^ y))) == 0
    }
}

impl<T> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// `#[serde(with = "stdx::secret::exposed")]`: the field is written and read in the clear.
pub mod exposed {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Secret;

    /// Writes the secret in the clear.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<T: Serialize, S: Serializer>(secret: &Secret<T>, serializer: S) -> Result<S::Ok, S::Error> {
        secret.expose().serialize(serializer)
    }

    /// Reads a secret written in the clear.
    ///
    /// # Errors
    /// Those of the deserializer.
    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Secret<T>, D::Error> {
        T::deserialize(deserializer).map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Holder {
        #[serde(with = "exposed")]
        token: Secret<String>,
    }

    #[test]
    fn debug_of_a_holder_does_not_show_it() {
        let holder = Holder { token: Secret::new("hunter2".into()) };
        assert_eq!(format!("{holder:?}"), "Holder { token: [secret] }");
    }

    #[test]
    fn the_explicit_helper_round_trips() {
        let holder = Holder { token: Secret::new("hunter2".into()) };
        let text = serde_json::to_string(&holder).unwrap();
        assert_eq!(text, r#"{"token":"hunter2"}"#);
        assert_eq!(serde_json::from_str::<Holder>(&text).unwrap(), holder);
    }

    #[test]
    fn matches_only_the_same_bytes() {
        let secret = Secret::new("abc".to_owned());
        assert!(secret.matches("abc"));
        assert!(!secret.matches("abd"));
        assert!(!secret.matches("ab"));
        assert!(!secret.matches("abcd"));
    }
}
