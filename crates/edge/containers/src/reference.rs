//! Image references: `registry.k8s.io/pause:3.8`, `busybox`, `ghcr.io/a/b@sha256:…`.

use std::fmt;
use std::str::FromStr;

/// An image reference with its defaults filled in: host `docker.io`, `library/` for its single-word names, tag `latest`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    pub host: String,
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<String>,
}

/// Why a text is no image reference.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("image reference {text:?}: {reason}")]
pub struct ParseReferenceError {
    pub text: String,
    pub reason: &'static str,
}

impl Reference {
    /// The selector for the registry: the digest if present, else the tag.
    pub fn selector(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |reason| ParseReferenceError { text: text.to_owned(), reason };
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        if digest.is_some_and(|d| !is_digest(d)) {
            return Err(fail("the digest must be sha256: and 64 hexadecimal digits"));
        }
        let (host, rest) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
            _ => ("docker.io", name),
        };
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (rest, None),
        };
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c);
        if repository.is_empty() || !repository.chars().all(word) || repository.split('/').any(str::is_empty) {
            return Err(fail("the name must be lower-case words separated by slashes"));
        }
        let tag_char = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if tag.is_some_and(|t| t.is_empty() || t.len() > 128 || !t.chars().all(tag_char)) {
            return Err(fail("the tag must be 1 to 128 letters, digits, dots, dashes or underscores"));
        }
        let repository = if host == "docker.io" && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self { host: host.to_owned(), repository, tag, digest: digest.map(str::to_owned) })
    }
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_get_their_defaults() {
        for (text, full) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("a/b:1", "docker.io/a/b:1"),
            ("registry.k8s.io/pause:3.8", "registry.k8s.io/pause:3.8"),
            ("localhost:5000/x/y", "localhost:5000/x/y:latest"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), full);
        }
    }

    #[test]
    fn a_digest_is_what_is_asked_for() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let reference: Reference = format!("ghcr.io/a/b:v1@{digest}").parse().unwrap();
        assert_eq!(reference.selector(), digest);
        assert_eq!(reference.tag.as_deref(), Some("v1"));
    }

    #[test]
    fn broken_references_say_what_is_wrong() {
        for (text, reason) in [
            ("", "the name must be lower-case words separated by slashes"),
            ("ghcr.io//x", "the name must be lower-case words separated by slashes"),
            ("Upper", "the name must be lower-case words separated by slashes"),
            ("x:", "the tag must be 1 to 128 letters, digits, dots, dashes or underscores"),
            ("x@sha256:12", "the digest must be sha256: and 64 hexadecimal digits"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap_err().reason, reason, "{text:?}");
        }
    }
}
