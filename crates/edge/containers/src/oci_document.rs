//! The fields of OCI image documents that a pull reads: index, manifest and configuration.
//!
//! Fields that a pull does not need are ignored, as the specification asks; the documents themselves are stored as the
//! bytes that the registry sent.

use std::fmt;

use serde::Deserialize;

/// A SHA-256 digest in its text form, `sha256:` and 64 hexadecimal digits. Digests come from registries and end up in
/// URLs and in names of snapshots, so no other text is taken for one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Digest(String);

/// A text that is no digest that a pull can check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a sha256 digest")]
pub(crate) struct ParseDigestError(String);

impl TryFrom<String> for Digest {
    type Error = ParseDigestError;

    fn try_from(text: String) -> Result<Self, ParseDigestError> {
        let is_hex =
            |digits: &str| digits.len() == 64 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if text.strip_prefix("sha256:").is_some_and(is_hex) { Ok(Self(text)) } else { Err(ParseDigestError(text)) }
    }
}

impl Digest {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A reference from one document to another, or to a layer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    /// In bytes.
    pub(crate) size: u64,
    pub(crate) platform: Option<Platform>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Platform {
    pub(crate) os: String,
    /// As Go names it: `amd64`, `arm64`.
    pub(crate) architecture: String,
}

/// One image for several platforms.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Index {
    pub(crate) manifests: Vec<Descriptor>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    /// The bottom layer first.
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Configuration {
    /// What its containers are started with.
    #[serde(default)]
    pub(crate) config: Option<Start>,
    pub(crate) rootfs: RootFs,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Start {
    /// `NAME=VALUE`.
    #[serde(rename = "Env", default)]
    pub(crate) env: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct RootFs {
    /// Digests of the layers as they are without compression, the bottom one first.
    pub(crate) diff_ids: Vec<Digest>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sha256_in_lower_case_is_a_digest() {
        let good = format!("sha256:{}", "0f".repeat(32));
        assert_eq!(Digest::try_from(good.clone()).unwrap().as_str(), good);
        for bad in [
            format!("sha256:{}", "0F".repeat(32)),
            format!("sha256:{}", "0f".repeat(31)),
            format!("sha512:{}", "0f".repeat(64)),
            format!("sha256:../../{}", "0".repeat(58)),
            String::new(),
        ] {
            assert_eq!(Digest::try_from(bad.clone()), Err(ParseDigestError(bad)));
        }
    }

    #[test]
    fn an_index_names_the_platform_of_each_manifest() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let text = format!(
            r#"{{"schemaVersion": 2, "manifests": [
                {{"mediaType": "m", "digest": "{digest}", "size": 7, "platform": {{"os": "linux", "architecture": "arm64", "variant": "v8"}}}},
                {{"mediaType": "m", "digest": "{digest}", "size": 8, "annotations": {{}}}}]}}"#
        );
        let index: Index = serde_json::from_str(&text).unwrap();
        let platform = Platform { os: "linux".to_owned(), architecture: "arm64".to_owned() };
        assert_eq!(index.manifests[0].platform, Some(platform));
        assert_eq!((index.manifests[1].platform.as_ref(), index.manifests[1].size), (None, 8));
    }
}
